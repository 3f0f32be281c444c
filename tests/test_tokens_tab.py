"""The Tokens tab in a real browser, and the same for programs."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
from gradio_client import Client
from playwright.sync_api import Browser, Page, expect

from pipeline.inference.tokens import Candidate, Prediction, Reading, Token
from tests.browsing import opened
from ui.answering import LoadedFamily
from ui.distributions import answer, percent, predictions, running, visible
from ui.tokens import BLANK_EXAMPLE, EXAMPLE

PROMPT = "Tell me about banks"


@pytest.fixture(scope="module")
def client(address: str) -> Client:
    return Client(address, verbose=False)


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The page with the Tokens tab open and its example read."""
    for page in opened(browser, address):
        page.get_by_role("tab", name="Tokens").click()
        expect(page.get_by_role("listbox")).to_be_visible()
        yield page


def send(page: Page, prompt: str) -> None:
    """Send a prompt with Enter and wait for its answer, not the one before it."""
    page.locator("#token-answer .detail").evaluate("(line) => (line.textContent = 'before')")
    page.locator("#token-prompt textarea").fill(prompt)
    page.locator("#token-prompt textarea").press("Enter")
    expect(page.locator("#token-answer .detail")).to_contain_text("Token 1 of")


def shown(page: Page, stage: str) -> list[str]:
    return page.locator(f"#token-lists .side.{stage} .candidates .percent").all_inner_texts()


def shares(top: list[dict[str, Any]]) -> list[str]:
    return [percent(math.exp(candidate["logprob"])) for candidate in top]


def test_a_token_shows_what_every_stage_would_have_said(page: Page, client: Client) -> None:
    send(page, PROMPT)
    tokens = client.predict(PROMPT, "rlhf", api_name="/tokens")
    options = page.get_by_role("option")
    expect(options).to_have_count(len(tokens))
    expect(page.locator("#token-lists .spot")).to_contain_text("At the start of its answer, RLHF wrote")
    for position in (0, 7, 3):
        options.nth(position).click()
        expect(options.nth(position)).to_have_attribute("aria-selected", "true")
        expect(page.locator("#token-lists .side.rlhf .took")).to_contain_text("(rank 1)")
        for stage, said in tokens[position]["stages"].items():
            expect(page.locator(f"#token-lists .side.{stage} .took")).to_contain_text(f"(rank {said['rank']:,})")
            assert shown(page, stage) == shares(said["top"])
            marked = page.locator(f"#token-lists .side.{stage} .candidates .taken")
            assert marked.count() == (said["rank"] <= 10)
    assert page.locator("#token-lists .side").count() == 3


def test_arrow_keys_move_along_the_answer(page: Page) -> None:
    options = page.get_by_role("option")
    options.nth(2).click()
    place = page.locator("#token-lists .spot")
    for key, position in (("ArrowRight", 3), ("ArrowDown", 4), ("ArrowLeft", 3), ("Home", 0), ("ArrowLeft", 0)):
        page.keyboard.press(key)
        expect(options.nth(position)).to_be_focused()
        expect(options.nth(position)).to_have_attribute("aria-selected", "true")
        expect(page.locator("[role=option][aria-selected=true]")).to_have_count(1)
        expect(place).to_contain_text("After" if position else "At the start of its answer")
    page.keyboard.press("End")
    expect(options.last).to_be_focused()


def test_pressed_quickly_the_last_position_is_shown(page: Page, client: Client) -> None:
    page.get_by_role("option").first.click()
    for _ in range(9):
        page.keyboard.press("ArrowRight")
    said = client.predict(EXAMPLE, "rlhf", api_name="/tokens")[9]["stages"]
    for stage in said:
        expected = shares(said[stage]["top"])
        expect(page.locator(f"#token-lists .side.{stage} .candidates .percent")).to_have_text(expected)


def test_one_line_tells_about_the_token_under_the_pointer_or_in_focus(page: Page) -> None:
    options, line = page.get_by_role("option"), page.locator("#token-answer .detail")
    options.nth(1).click()
    expect(line).to_contain_text("Token 2 of")
    options.nth(5).hover()
    expect(line).to_contain_text("Token 6 of")
    expect(line).to_contain_text("Log-ratio")
    page.mouse.move(0, 0)
    expect(line).to_contain_text("Token 2 of")
    page.keyboard.press("ArrowRight")
    expect(line).to_contain_text("Token 3 of")


def test_the_answer_of_another_stage(page: Page, client: Client) -> None:
    page.locator("#token-stage").get_by_label("SFT").check()
    expect(page.locator(".reading.sft .legend")).to_be_visible()
    categories = [token["category"] for token in client.predict(EXAMPLE, "sft", api_name="/tokens")]
    counts = [str(categories.count(category)) for category in ("unshifted", "marginal", "shifted")]
    expect(page.locator(".legend b")).to_have_text(counts)
    assert page.locator("[role=option].shifted").count() == categories.count("shifted")
    page.locator("#token-stage").get_by_label("Base").check()
    expect(page.locator(".reading.base .lesson")).to_contain_text("first stage")
    assert page.locator(".legend").count() == 0


def test_a_prompt_of_compare_is_taken_until_one_is_written_here(page: Page) -> None:
    prompt = page.locator("#token-prompt textarea")
    expect(prompt).to_have_value(EXAMPLE)
    for written, expected in ((PROMPT, PROMPT), ("", PROMPT), ("Hi there", "Hi there")):
        page.get_by_role("tab", name="Compare").click()
        page.locator("#prompt textarea").fill(written)
        page.get_by_role("tab", name="Tokens").click()
        expect(prompt).to_have_value(expected)
    prompt.fill("My own words")
    page.get_by_role("tab", name="Compare").click()
    page.locator("#prompt textarea").fill("Others")
    page.get_by_role("tab", name="Tokens").click()
    send(page, "My own words")
    expect(prompt).to_have_value("My own words")


def test_a_blank_is_filled_by_every_stage(page: Page) -> None:
    expect(page.locator("#blank-sentence").get_by_label("Sentence")).to_have_value(BLANK_EXAMPLE)
    page.locator("#blank-sentence").get_by_label("Sentence").press("Enter")
    for stage in ("base", "sft", "rlhf"):
        rows = page.locator(f"#blank-lists .side.{stage} li:not(.empty)")
        expect(rows.first).to_be_visible()
        values = [float(text.strip("%")) for text in rows.locator(".percent").all_inner_texts()]
        assert values == sorted(values, reverse=True)


def test_what_cannot_be_used_is_one_clear_line(page: Page) -> None:
    alert = page.get_by_role("alert")
    for prompt, complaint in (("  ", "the prompt is empty"), ("a" * 600, "has 600 characters")):
        page.locator("#token-prompt textarea").fill(prompt)
        page.locator("#token-send").click()
        expect(alert).to_contain_text(complaint)
    send(page, PROMPT)
    expect(alert).to_have_count(0)
    page.locator("#blank-sentence").get_by_label("Sentence").fill("No blank here.")
    page.get_by_role("button", name="Fill in").click()
    expect(alert).to_contain_text("there is no blank")


@pytest.mark.parametrize("width", [390, 768])
def test_a_narrow_screen_stacks_the_lists_and_never_scrolls_sideways(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    send(page, "word" * 40)
    page.get_by_role("button", name="Fill in").click()
    expect(page.locator("#blank-lists li:not(.empty)").first).to_be_visible()
    boxes = [side.bounding_box() for side in page.locator("#token-lists .side").all()]
    assert len({box["x"] for box in boxes if box}) == 1
    assert len({box["y"] for box in boxes if box}) == 3
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # Nor is anything cut off within the tab.
    assert page.locator("#tokens").evaluate(
        "(tab) => [...tab.querySelectorAll('label, button, li, p')]"
        ".every((part) => part.getBoundingClientRect().right <= window.innerWidth)"
    )


def test_programs_get_every_token(client: Client, family: LoadedFamily) -> None:
    tokens = client.predict("How are you?", "sft", 1.0, 5, 8, api_name="/tokens")
    assert tokens == client.predict("How are you?", "sft", 1.0, 5, 8, api_name="/tokens")
    assert 0 < len(tokens) <= 8
    for token in tokens:
        assert set(token) == {"id", "token", "kind", "category", "stages"}
        assert list(token["stages"]) == list(family.models)
        for said in token["stages"].values():
            assert set(said) == {"logprob", "rank", "top"}
            assert len(said["top"]) == 10
            if said["rank"] <= 10:
                taken = said["top"][said["rank"] - 1]
                assert (taken["id"], taken["token"]) == (token["id"], token["token"])
                assert taken["logprob"] == pytest.approx(said["logprob"])


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("",), "the prompt is empty"),
        (("Hi", "reward"), "there is no stage 'reward'"),
        (("Hi", "sft", 0.0, 0, 0), "max_new_tokens is 0; it must be a whole number of at least 1"),
        (("Hi", "sft", -1.0), "temperature is -1"),
    ],
)
def test_programs_get_one_clear_line(client: Client, arguments: tuple[Any, ...], complaint: str) -> None:
    with pytest.raises(Exception, match=complaint):
        client.predict(*arguments, api_name="/tokens")


def test_every_token_is_legible_and_nothing_is_markup() -> None:
    assert visible(Token(1, " a\n")).replace('<span class="mark">', "").replace("</span>", "") == "\u2423a\u21b5"
    assert "U+200B" in visible(Token(1, "\u200b"))
    assert "byte C3<" in visible(Token(1, "C3", "bytes"))
    assert "bytes E2 82<" in visible(Token(1, "E2 82", "bytes"))
    assert "end of answer" in visible(Token(1, "end of answer", "control"))
    assert "&lt;|end|&gt;" in running("<|end|>")
    token = Token(1, '"><u>')
    prediction = Prediction(-1.0, 12, [Candidate(Token(2, "<i>"), -0.5)])
    reading = Reading("sft", "", [token], {"base": [prediction], "sft": [prediction]})
    assert "<u>" not in answer(reading)
    assert 'data-detail="Token 1 of 1, “&quot;&gt;&lt;u&gt;”: SFT 36.8% (rank 12)' in answer(reading)
    assert "<i>" not in predictions(reading)


def test_shares_are_readable() -> None:
    assert [percent(share) for share in (1, 0.4567, 0.00123, 0.0004, 0.00002, 1e-9)] == [
        "100.0%",
        "45.7%",
        "0.1%",
        "0.040%",
        "0.002%",
        "under 0.001%",
    ]
