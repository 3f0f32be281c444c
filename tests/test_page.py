"""The page in a real browser: Debian's Chromium against a real server."""

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from pipeline.inference.decoding import Decoding
from pipeline.inference.models import Answer
from tests.browsing import PATIENCE, finish, opened, say, send, served
from tests.families import speaking
from ui.answering import LoadedFamily, load


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    yield from opened(browser, address)


def states(page: Page) -> list[str | None]:
    return [stage.get_attribute("data-state") for stage in page.locator(".stage").all()]


def test_a_prompt_gets_three_answers_and_three_scores(page: Page) -> None:
    page.get_by_label("Prompt").fill("How are you?")
    expect(page.locator("#counter")).to_contain_text("12 / 512")
    page.get_by_label("Prompt").press("Control+Enter")
    finish(page)
    assert all(text.strip() for text in page.locator(".written").all_inner_texts())
    numbers = page.locator(".number").all_inner_texts()
    assert len(numbers) == 3
    assert all(re.fullmatch(r"[+\u2212]\d+\.\d\d", number) for number in numbers)
    assert [re.match(r"\d+ tokens?", text) is not None for text in page.locator(".count").all_inner_texts()] == [
        True
    ] * 3
    assert set(page.locator(".how").all_inner_texts()) <= {"Stopped by itself", "Cut at the limit"}


def test_nothing_moves_while_text_streams(page: Page, family: LoadedFamily, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ui.answering.SECONDS_BETWEEN_VIEWS", 0)
    text = "A sentence of a usual answer, with words of usual length. " * 6
    stream = say(*(text[:end] for end in range(4, len(text), 4)))
    for stage, model in family.models.items():
        monkeypatch.setitem(family.models, stage, speaking(model, stream))
    places = "[...document.querySelectorAll('.figures')].map((part) => part.getBoundingClientRect().top)"
    before = page.evaluate(places)
    page.evaluate(
        f"""() => {{
            window.seen = [];
            new MutationObserver(() => window.seen.push({places})).observe(
                document.querySelector("#columns"), {{childList: true, subtree: true, characterData: true}});
        }}"""
    )
    send(page, "Tell me something")
    finish(page)
    seen = page.evaluate("window.seen")
    assert len(seen) > 3
    assert all(tops == before for tops in seen)


def test_the_same_seed_says_the_same_and_again_something_else(page: Page) -> None:
    answers = []
    for button in ("Send", "Send", "Again"):
        page.get_by_label("Prompt").fill("Tell me a story")
        page.locator(".stage").evaluate_all("(stages) => stages.forEach((stage) => (stage.dataset.state = 'before'))")
        page.get_by_role("button", name=button).click()
        finish(page)
        answers.append(page.locator(".written").all_inner_texts())
    assert answers[0] == answers[1]
    assert all(first != other for first, other in zip(answers[0], answers[2], strict=True))


def test_an_empty_or_too_long_prompt_is_a_message_and_nothing_is_sent(page: Page) -> None:
    for prompt in ("", "  ", "a" * 100_000):
        send(page, prompt)
        expect(page.get_by_role("alert")).to_be_visible()
        page.get_by_label("Prompt").press("End")
        page.get_by_label("Prompt").press("x")
        expect(page.get_by_role("alert")).to_have_count(0)
    assert states(page) == ["idle"] * 3


def test_an_error_in_one_column_leaves_the_others_alone(
    page: Page, family: LoadedFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(prompt: str, decoding: Decoding) -> Iterator[Answer]:
        yield Answer("half an", 2, False)
        raise RuntimeError("the weights are tired")

    monkeypatch.setitem(family.models, "sft", speaking(family.models["sft"], fail))
    send(page, "How are you?")
    expect(page.locator(".stage.sft")).to_contain_text("the weights are tired")
    expect(page.locator(".number")).to_have_count(2)
    assert "failed" not in (states(page)[0], states(page)[2])


def test_a_slow_column_holds_nobody_up(page: Page, family: LoadedFamily, monkeypatch: pytest.MonkeyPatch) -> None:
    others_are_done = threading.Event()

    def wait(prompt: str, decoding: Decoding) -> Iterator[Answer]:
        assert others_are_done.wait(PATIENCE / 1000)
        yield Answer("at last", 1, True)

    monkeypatch.setitem(family.models, "base", speaking(family.models["base"], wait))
    send(page, "How are you?")
    expect(page.locator(".number")).to_have_count(2)
    assert states(page)[0] == "waiting"
    others_are_done.set()
    finish(page)
    expect(page.locator(".stage.base .written")).to_have_text("at last")


def test_stop_ends_all_three_and_keeps_what_was_written(
    page: Page, family: LoadedFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = threading.Semaphore(0)

    def endless(prompt: str, decoding: Decoding) -> Iterator[Answer]:
        try:
            tokens = 0
            while True:
                tokens += 1
                time.sleep(0.01)  # what a token takes
                yield Answer("on and on", tokens, False)
        finally:
            closed.release()

    for stage, model in family.models.items():
        monkeypatch.setitem(family.models, stage, speaking(model, endless))
    send(page, "Go on")
    expect(page.locator(".stage[data-state=writing]")).to_have_count(3)
    page.get_by_role("button", name="Stop").click()
    assert all(closed.acquire(timeout=PATIENCE / 1000) for _ in range(3))
    expect(page.locator(".stage[data-state=halted]")).to_have_count(3)
    assert page.locator(".written").all_inner_texts() == ["on and on"] * 3


def test_markup_and_control_tokens_are_shown_as_text(
    page: Page, family: LoadedFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "<b>x</b><|assistant|> **bold** {{value}} ${1+1} `tick` \\n </section>"
    monkeypatch.setitem(family.models, "rlhf", speaking(family.models["rlhf"], say(text)))
    prompt = "<i>y</i><|assistant|>${2+2}"
    send(page, prompt)
    finish(page)
    assert page.locator(".stage.rlhf .written").inner_text() == text
    assert page.locator(".stage.base .given").inner_text() == prompt
    assert page.locator("#columns").locator(".answer :is(b, i)").count() == 0


@pytest.mark.parametrize("width", [390, 768])
def test_a_narrow_screen_stacks_the_columns_and_never_scrolls_sideways(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    send(page, "word" * 40)
    finish(page)
    boxes = [stage.bounding_box() for stage in page.locator(".stage").all()]
    assert len({box["x"] for box in boxes if box}) == 1
    assert len({box["y"] for box in boxes if box}) == 3
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_trained_family_answers(browser: Browser, nano_family: Path) -> None:
    for address in served(load(nano_family)):
        for page in opened(browser, address):
            send(page, "What is the capital of France?")
            finish(page)
            expect(page.locator(".number")).to_have_count(3)
