"""The Reward tab in a real browser."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from pipeline.inference.what_if import EDITS
from tests.browsing import PATIENCE, served
from tests.families import random_family
from ui.answering import LoadedFamily, load
from ui.reward import EXAMPLE

FINISHED = re.compile(r"\d+ answers in [\d.]+ seconds")


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The page with the tab open and its example scored."""
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.get_by_role("tab", name="Reward").click()
    page.locator("#score .number").wait_for()
    yield page
    page.close()


def draw(page: Page, count: int = 4) -> None:
    page.locator("#draw-settings").get_by_role("radio", name=str(count), exact=True).check()
    page.locator("#draw").click()
    expect(page.locator("#draw-notice")).to_contain_text(FINISHED)


def number(text: str) -> float:
    return float(text.replace("\N{MINUS SIGN}", "-"))


def scored(page: Page) -> float:
    return number(page.locator("#score .number").inner_text())


def expect_score(page: Page, value: float) -> None:
    expect(page.locator("#score .number")).to_have_text(f"{value:+.2f}".replace("-", "\N{MINUS SIGN}"))


def boxes(page: Page) -> tuple[str, str]:
    return page.locator("#score-prompt textarea").input_value(), page.locator("#score-answer textarea").input_value()


def test_n_answers_stand_best_first_before_the_clouds_of_all_stages(page: Page) -> None:
    draw(page, 8)
    rows = page.locator("#ranked li")
    rewards = [number(text) for text in rows.locator(".number").all_inner_texts()]
    assert rewards == sorted(rewards, reverse=True)
    assert sum(int(times or 0) for times in rows.evaluate_all("(rows) => rows.map((row) => row.dataset.times)")) == 8
    names = rows.locator(".name").all_inner_texts()
    assert names == ["Best", *[""] * (len(rewards) - 2), "Worst"]
    assert page.locator("#clouds .plot circle:not(.ring)").count() == 3 * 8
    assert page.locator("#clouds .mean").count() == 3
    assert page.locator("#clouds .sft .ring").count() == 1
    expect(page.locator("#clouds .finding")).to_contain_text(
        re.compile(f"Best of 8 from SFT: .{abs(rewards[0]):.2f}. That is (not )?above what RLHF reaches on average")
    )


def test_another_stage_can_be_chosen_and_enter_draws(page: Page) -> None:
    page.locator("#draw-settings").get_by_role("radio", name="RLHF").check()
    page.locator("#draw-settings").get_by_role("radio", name="4", exact=True).check()
    page.locator("#best-of-prompt textarea").press("Enter")
    expect(page.locator("#draw-notice")).to_contain_text(FINISHED)
    expect(page.locator("#ranked .caption")).to_contain_text("4 answers of RLHF")
    assert page.locator("#clouds .rlhf .ring").count() == 1


def test_a_drawing_that_takes_too_long_is_ended(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ui.limits.LONGEST_SECONDS", 0.0)
    page.locator("#draw").click()
    expect(page.locator("#draw-notice .problem")).to_contain_text("longer than 0 seconds")
    monkeypatch.undo()
    draw(page)


def test_identical_answers_are_grouped(page: Page) -> None:
    page.get_by_label("number input for Temperature").fill("0")
    page.get_by_label("number input for Temperature").press("Tab")
    draw(page)
    expect(page.locator("#ranked li")).to_have_count(1)
    expect(page.locator("#ranked .times")).to_have_text("4 times")


def test_a_press_carries_an_answer_into_the_score_box(page: Page) -> None:
    page.locator("#best-of-prompt textarea").fill("Tell me a story")
    draw(page)
    row = page.locator("#ranked li").nth(1)
    reward = number(row.locator(".number").inner_text())
    row.get_by_role("button").click()
    expect(page.locator("#score-prompt textarea")).to_have_value("Tell me a story")
    assert boxes(page)[1].split() == row.locator(".text").text_content().split()  # type: ignore[union-attr]
    expect(page.locator("#score-finished input")).to_be_checked(checked="Stopped" in row.inner_text())
    expect_score(page, reward)


def test_typing_changes_the_score_to_that_of_the_reward_model(page: Page, family: LoadedFamily) -> None:
    assert family.reward
    before = scored(page)
    page.locator("#score-prompt textarea").fill("What is the capital of France?")
    page.locator("#score-answer textarea").press_sequentially(" Paris", delay=5)
    exchange = boxes(page)
    assert exchange[1].endswith("Paris")
    [whole, cut] = family.reward.scores([exchange] * 2, [True, False])
    expect_score(page, whole)
    assert scored(page) != before
    expect(page.locator("#score .changes")).to_contain_text("since the last edit")
    page.locator("#score-finished input").uncheck()
    expect_score(page, cut)


def test_every_what_if_edits_the_answer_and_is_listed(page: Page, family: LoadedFamily) -> None:
    assert family.reward
    original = boxes(page)
    for tried, name in enumerate(EDITS, 1):
        before = scored(page)
        page.get_by_role("button", name=name).click()
        expect(page.locator("#tried tbody tr")).to_have_count(tried)
        row = page.locator("#tried tbody tr").first
        assert row.locator("th").inner_text() == name
        numbers = [number(text) for text in row.locator("td").all_inner_texts()]
        assert numbers[0] == before
        expect_score(page, numbers[1])
        finished = page.locator("#score-finished input").is_checked()
        assert numbers[1] == pytest.approx(family.reward.scores([boxes(page)], [finished])[0], abs=0.006)
    page.get_by_role("button", name="Back to the pinned one").click()
    expect(page.locator("#score-answer textarea")).to_have_value(original[1])


def test_pinning_starts_a_new_comparison(page: Page) -> None:
    page.get_by_role("button", name="SHOUT it").click()
    expect(page.locator("#score .changes")).to_contain_text("against the pinned answer")
    shouted = boxes(page)
    page.get_by_role("button", name="Pin this answer").click()
    expect(page.locator("#score .changes")).to_contain_text("This answer is pinned")
    page.get_by_role("button", name="Begin with No").click()
    expect(page.locator("#tried tbody tr")).to_have_count(1)
    page.get_by_role("button", name="Back to the pinned one").click()
    expect(page.locator("#score-answer textarea")).to_have_value(shouted[1])


@pytest.mark.parametrize(("prompt", "words"), [("  ", "empty"), ("word " * 1000, "characters")])
def test_a_prompt_that_cannot_be_answered_is_one_message(page: Page, prompt: str, words: str) -> None:
    draw(page)
    before = page.locator("#ranked").inner_text()
    page.locator("#best-of-prompt textarea").fill(prompt)
    page.locator("#draw").click()
    expect(page.get_by_role("alert")).to_contain_text(words)
    assert page.locator("#ranked").inner_text() == before
    assert page.locator("#best-of-prompt textarea").input_value() == prompt


def test_an_answer_that_is_too_long_is_one_message_and_nothing_is_lost(page: Page) -> None:
    before = scored(page)
    text = "word " * 400
    page.locator("#score-answer textarea").fill(text)
    expect(page.get_by_role("alert")).to_contain_text("tokens together")
    with page.expect_response(re.compile("/run/predict")):
        page.get_by_role("button", name="Twice as long").click()
    assert boxes(page) == (EXAMPLE, text)
    assert scored(page) == before
    page.locator("#score-answer textarea").fill("short")
    expect(page.get_by_role("alert")).to_have_count(0)


def test_stop_ends_the_drawing(page: Page) -> None:
    page.locator("#draw-settings").get_by_role("radio", name="32").check()
    page.locator("#draw").click()
    expect(page.locator("#draw-notice")).to_contain_text("is writing 32 answers")
    page.locator("#halt-draw").click()
    expect(page.locator("#draw-notice")).to_contain_text("Stopped by you")


def test_an_unedited_prompt_follows_compare(page: Page) -> None:
    own = page.locator("#best-of-prompt textarea")
    expect(own).to_have_value(EXAMPLE)
    for typed, expected in (("How are you?", "How are you?"), ("And you?", "And you?")):
        page.get_by_role("tab", name="Compare").click()
        page.locator("#prompt textarea").fill(typed)
        page.get_by_role("tab", name="Reward").click()
        expect(own).to_have_value(expected)
    own.fill("My own")
    page.get_by_role("tab", name="Compare").click()
    page.locator("#prompt textarea").fill("Something else")
    with page.expect_response(re.compile("/run/predict")):
        page.get_by_role("tab", name="Reward").click()
    expect(own).to_have_value("My own")


def test_what_a_model_wrote_is_shown_as_text(page: Page) -> None:
    text = "<b>x</b> ${1+1} {{value}}"
    page.locator("#best-of-prompt textarea").fill(text)
    draw(page)
    page.locator("#ranked button").first.click()
    expect(page.locator("#score-prompt textarea")).to_have_value(text)
    assert page.locator("#ranked b").count() == 0


def test_a_narrow_screen_never_scrolls_sideways(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    draw(page)
    page.get_by_role("button", name="Twice as long").click()
    page.locator("#tried tbody tr").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator("#ranked button").last.click()
    page.wait_for_function("document.querySelector('#score-any').getBoundingClientRect().top < innerHeight / 2")


def test_a_family_without_a_reward_model_says_so(browser: Browser, tmp_path: Path) -> None:
    family = load(random_family(tmp_path / "half", ("base", "sft")).path)
    for address in served(family):
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        page.get_by_role("tab", name="Reward").click()
        expect(page.locator("#no-reward")).to_have_text(re.compile("no reward model yet"))
        page.close()
