"""What the Compare tab adds to three answers: presets, enlarging, copying, rewards, guess mode. In a real browser."""

import re
import threading
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, FloatRect, Locator, Page, expect

from pipeline.inference.decoding import Decoding
from pipeline.inference.models import Answer
from tests.browsing import PATIENCE, finish, opened, say, send
from tests.families import speaking
from ui.answering import COLUMNS, LoadedFamily
from ui.columns import LOOKS
from ui.pictures import choose
from ui.presets import presets


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    yield from opened(browser, address)


@pytest.fixture
def quick(family: LoadedFamily, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every stage says at once what it is."""
    for stage, model in family.models.items():
        monkeypatch.setitem(family.models, stage, speaking(model, say(f"I am {stage}")))


def rewards(page: Page) -> list[str]:
    return page.locator("#rewards .line b").all_inner_texts()


def test_a_category_shows_its_prompts_and_a_prompt_is_sent_with_what_to_look_for(page: Page, quick: None) -> None:
    for category in dict.fromkeys(preset.category for preset in presets()):
        page.get_by_role("radio", name=category).check()
        shown = page.locator("#presets button:visible").all_inner_texts()
        assert shown == [preset.prompt for preset in presets() if preset.category == category]
    preset = presets()[-1]
    choose(page, preset.prompt)
    expect(page.get_by_label("Prompt")).to_have_value(preset.prompt)
    expect(page.locator("#notice")).to_contain_text(preset.look_for)
    finish(page)
    expect(page.locator(".stage.base .given")).to_have_text(preset.prompt)


def test_a_preset_is_reached_by_keyboard_alone(page: Page, quick: None) -> None:
    page.get_by_role("button", name="Again").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    second = list(dict.fromkeys(preset.category for preset in presets()))[1]
    first = next(preset for preset in presets() if preset.category == second)
    expect(page.get_by_label("Prompt")).to_have_value(first.prompt)
    finish(page)


def test_a_column_stays_enlarged_and_focused_while_it_is_written(
    page: Page, family: LoadedFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Semaphore(0)

    def slow(prompt: str, decoding: Decoding) -> Iterator[Answer]:
        yield Answer("one", 1, False)
        assert go_on.acquire(timeout=PATIENCE / 1000)
        yield Answer("one two", 2, True)

    monkeypatch.setattr("ui.answering.SECONDS_BETWEEN_VIEWS", 0)
    monkeypatch.setitem(family.models, "sft", speaking(family.models["sft"], slow))
    send(page, "How are you?")
    expect(page.locator(".stage.sft .written")).to_have_text("one")
    width = box(page.locator(".stage.sft"))["width"]
    page.get_by_role("button", name="Enlarge SFT").press("Enter")
    go_on.release()
    finish(page)
    expect(page.locator(".stage.sft .written")).to_have_text("one two")
    expect(page.locator(".stage:visible")).to_have_count(1)
    expect(page.get_by_role("button", name="Show all columns")).to_be_focused()
    assert box(page.locator(".stage.sft"))["width"] > 2 * width
    page.keyboard.press("Escape")
    expect(page.locator(".stage:visible")).to_have_count(3)
    expect(page.get_by_role("button", name="Enlarge SFT")).to_be_focused()


def box(part: Locator) -> FloatRect:
    found = part.bounding_box()
    assert found
    return found


def test_an_answer_is_copied_as_it_was_written(
    page: Page, address: str, family: LoadedFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "<b>one</b>\n\n  two & three"
    monkeypatch.setitem(family.models, "base", speaking(family.models["base"], say(text)))
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address.rstrip("/"))
    expect(page.get_by_role("button", name="Copy the answer of Base")).to_be_disabled()
    send(page, "How are you?")
    finish(page)
    page.get_by_role("button", name="Copy the answer of Base").click()
    expect(page.get_by_text("Copied", exact=True)).to_have_count(1)
    assert page.evaluate("navigator.clipboard.readText()") == text
    # Where the page has no safe origin, browsers keep this from it.
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.get_by_role("button", name="Copy the answer of SFT").click()
    page.get_by_label("Prompt").fill("")
    page.get_by_label("Prompt").press("Control+v")
    expect(page.get_by_label("Prompt")).to_have_value(page.locator(".stage.sft .written").inner_text())


def test_the_rewards_stand_on_one_scale_and_move_nothing(page: Page) -> None:
    assert rewards(page) == []
    before = box(page.locator("#rewards"))
    send(page, "How are you?")
    finish(page)
    expect(page.locator("#rewards .line b")).to_have_count(3)
    numbers = page.locator(".number").all_inner_texts()
    assert rewards(page) == numbers
    assert box(page.locator("#rewards"))["height"] == before["height"]
    zero = box(page.locator("#rewards .zero").first)["x"]
    for number, mark in zip(numbers, page.locator("#rewards .mark").all(), strict=True):
        middle = box(mark)["x"] + box(mark)["width"] / 2
        assert (middle > zero) == number.startswith("+")


def test_base_can_be_asked_in_the_chat_format(page: Page) -> None:
    texts = []
    page.get_by_role("button", name="Settings").click()
    for label in ("the raw text", "the chat format"):
        page.get_by_label(label).check()
        page.locator(".stage").evaluate_all("(stages) => stages.forEach((stage) => (stage.dataset.state = 'before'))")
        send(page, "How are you?")
        finish(page)
        texts.append(page.locator(".written").all_inner_texts())
    assert page.locator(".given").all_inner_texts() == ["<|user|> How are you?<|end|><|assistant|>"]
    assert texts[0][0] != texts[1][0]
    assert texts[0][1:] == texts[1][1:]


def test_guess_mode_from_shuffle_to_votes_to_reveal(
    page: Page, quick: None, family: LoadedFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ui.compare.shuffled", lambda: ("sft", "rlhf", "base"))
    page.get_by_label("Guess mode").check()
    expect(page.locator(".stage h2")).to_have_text(["A", "B", "C"])
    page.get_by_role("button", name="Reveal").click()
    expect(page.locator("#verdict")).to_have_text("Send a prompt first.")
    send(page, "Who are you?")
    finish(page)
    expect(page.locator(".written")).to_have_text(["I am sft", "I am rlhf", "I am base"])
    hidden = page.locator("#columns .stage, #rewards .lane").evaluate_all("(parts) => parts.map((p) => p.outerHTML)")
    hidden = [re.sub("I am [a-z]+", "", part) for part in hidden]
    assert not re.search("base|sft|rlhf|who are you", " ".join(hidden), re.IGNORECASE)
    assert page.locator(".given, .number, #rewards .mark").count() == 0

    # Two hands for SFT and one for base in A, a mistake in B that is taken back, and a tie in C.
    for letter, stages in {"A": "sft sft base", "B": "base rlhf", "C": "base sft"}.items():
        for stage in stages.split():
            vote(page, letter, stage)
    page.get_by_role("button", name="One vote less for Base as B").press("Enter")
    expect(votes(page, "A").locator("b")).to_have_text(["1", "2", "0"])
    expect(votes(page, "B").locator("b")).to_have_text(["0", "0", "1"])

    page.get_by_role("button", name="Reveal").click()
    expect(page.locator("#verdict")).to_have_text("The class got 2 of 3.")
    expect(page.locator(".stage h2")).to_have_text(["SFT A", "RLHF B", "Base C"])
    expect(page.locator("#rewards .line b")).to_have_count(3)
    expect(page.locator(".number")).to_have_count(3)
    right = page.locator(".count-of.true .add").evaluate_all(
        "(buttons) => buttons.map((button) => button.dataset.stage)"
    )
    assert right == ["sft", "rlhf", "base"]
    expect(votes(page, "A").locator(".add").first).to_be_disabled()

    send(page, "And you?")
    expect(page.locator(".stage h2")).to_have_text(["A", "B", "C"])
    expect(page.locator(".votes b")).to_have_text(["0"] * 9)
    expect(page.locator("#verdict")).to_have_text("")
    page.get_by_label("Guess mode").uncheck()
    expect(page.locator(".stage h2")).to_have_text([re.compile(LOOKS[stage].name) for stage in COLUMNS])
    expect(page.locator(".votes:visible")).to_have_count(0)


def votes(page: Page, letter: str) -> Locator:
    return page.get_by_role("group", name=f"Votes for {letter}")


def vote(page: Page, letter: str, stage: str) -> None:
    votes(page, letter).locator(f".add[data-stage={stage}]").click()


def test_nothing_is_revealed_while_an_answer_is_written(
    page: Page, quick: None, family: LoadedFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = threading.Event()

    def wait(prompt: str, decoding: Decoding) -> Iterator[Answer]:
        assert finished.wait(PATIENCE / 1000)
        yield Answer("at last", 1, True)

    monkeypatch.setitem(family.models, "sft", speaking(family.models["sft"], wait))
    page.get_by_label("Guess mode").check()
    send(page, "Who are you?")
    expect(page.locator("[data-state=stopped]")).to_have_count(2)
    page.get_by_role("button", name="Reveal").click()
    expect(page.locator("#verdict")).to_contain_text("Wait")
    assert sorted(page.locator(".stage h2").all_inner_texts()) == ["A", "B", "C"]
    finished.set()
    finish(page)


def test_guess_mode_begins_with_empty_columns_whatever_is_still_being_written(
    page: Page, family: LoadedFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    ended = threading.Semaphore(0)

    def slow(prompt: str, decoding: Decoding) -> Iterator[Answer]:
        try:
            yield Answer("one", 1, False)
            assert go_on.wait(PATIENCE / 1000)
            yield Answer("one two", 2, True)
        finally:
            ended.release()

    monkeypatch.setattr("ui.answering.SECONDS_BETWEEN_VIEWS", 0)
    for stage, model in family.models.items():
        monkeypatch.setitem(family.models, stage, speaking(model, slow))
    send(page, "Go on")
    expect(page.locator(".written")).to_have_text(["one"] * 3)
    page.get_by_label("Guess mode").check()
    expect(page.locator(".stage h2")).to_have_text(["A", "B", "C"])
    go_on.set()
    assert all(ended.acquire(timeout=PATIENCE / 1000) for _ in COLUMNS)
    # One more answer of the server: what the columns may have sent came before it.
    page.get_by_role("button", name="Reveal").click()
    expect(page.locator("#verdict")).to_have_text("Send a prompt first.")
    expect(page.locator(".stage h2")).to_have_text(["A", "B", "C"])
    expect(page.locator(".stage[data-state=idle]")).to_have_count(3)


@pytest.mark.parametrize("width", [390, 768, 1024])
def test_guess_mode_fits_a_narrow_screen(page: Page, quick: None, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    page.get_by_label("Guess mode").check()
    send(page, "Who are you?")
    finish(page)
    page.get_by_role("button", name="Reveal").click()
    expect(page.locator("#verdict")).to_contain_text("Nobody")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for group in page.locator(".votes").all():
        assert group.evaluate("(group) => group.scrollWidth <= group.clientWidth")
    for place, stage in zip(page.locator(".place").all(), page.locator(".stage").all(), strict=True):
        assert box(stage)["width"] == pytest.approx(box(place)["width"], abs=1)


@pytest.mark.parametrize("width", [390, 768, 900, 1001, 1161, 1401])
def test_nothing_stands_over_its_edge(page: Page, quick: None, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    send(page, "How are you?")
    finish(page)
    # What an answer of the usual length says of itself at most.
    page.locator(".stage .ending").evaluate_all(
        "(endings) => endings.forEach((ending) => { ending.querySelector('.count').textContent = '128 tokens';"
        " ending.querySelector('.speed').firstChild.data = '123'; })"
    )
    over = page.evaluate(
        """() => [...document.querySelectorAll("#options, .stage .ending")].flatMap((part) =>
          [...part.querySelectorAll("button, span")].filter((inner) => inner.checkVisibility() &&
            inner.getBoundingClientRect().right > part.getBoundingClientRect().right + 1)
          .map((inner) => inner.outerHTML.slice(0, 80)))"""
    )
    assert over == []
