"""The lesson in a real browser, with a family of random weights and the bundled family's report."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from pipeline.recipe import REPOSITORY
from pipeline.report.reading import Report, read_report
from tests.browsing import PATIENCE
from tests.families import random_family
from ui.answering import LoadedFamily, View, load
from ui.lesson import ADVICE, DIET, STEPS, agreement, finding


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> LoadedFamily:
    path: Path = random_family(tmp_path_factory.mktemp("families") / "random").path
    shutil.copy(REPOSITORY / "checkpoints" / "tiny" / "report.json", path)
    return load(path)


@pytest.fixture(scope="module")
def report(family: LoadedFamily) -> Report:
    report = read_report(family.files)
    assert report
    return report


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.get_by_role("tab", name="Lesson").click()
    page.locator("#step-0").wait_for()
    yield page
    page.close()


def step(page: Page, number: int) -> Locator:
    page.locator("#steps button").nth(number).click()
    return page.locator(f"#step-{number}")


def run_and_reveal(part: Locator, *choices: str) -> None:
    part.get_by_role("button", name="Run").click()
    expect(part.get_by_role("button", name="Reveal")).to_be_enabled()
    for number, choice in enumerate(choices):
        part.locator(".prediction").nth(number).get_by_label(choice, exact=True).check()
    part.get_by_role("button", name="Reveal").click()
    expect(part.locator(".explanation")).to_be_visible()


def test_all_eight_steps_are_walked_by_keyboard(page: Page) -> None:
    for number, wanted in enumerate(STEPS):
        part = page.locator(f"#step-{number}")
        expect(part.get_by_role("heading", name=f"{number + 1}. {wanted.title}")).to_be_visible()
        expect(part).to_contain_text(f"{wanted.minutes} minutes")
        expect(page.locator(".step:visible")).to_have_count(1)
        if number:
            expect(part.get_by_role("heading", name=wanted.title)).to_be_focused()
        if number + 1 < len(STEPS):
            part.get_by_role("button", name="Next step").press("Enter")
    page.locator("#step-7").get_by_role("button", name="Back").press("Enter")
    expect(page.locator("#step-6")).to_be_visible()
    assert sum(wanted.minutes for wanted in STEPS) == 20


def test_names_and_rewards_stay_hidden_until_they_are_revealed(page: Page) -> None:
    part = step(page, 0)
    part.get_by_role("button", name="Run").click()
    expect(part.get_by_role("button", name="Reveal")).to_be_enabled()
    assert part.locator(".card h3").all_inner_texts() == ["A", "B", "C"]
    expect(part.locator(".card.unknown")).to_have_count(3)
    expect(part.locator(".ended b")).to_have_count(0)
    part.get_by_label("B", exact=True).check()
    part.get_by_role("button", name="Reveal").click()
    expect(part.locator(".card.base")).to_have_count(1)
    expect(part.locator(".ended b")).to_have_count(3)
    where = part.locator(".card.base h3").inner_text()[0]
    expect(part.locator(".found")).to_contain_text(f"You said: B. Base was {where}.")


def test_a_step_runs_live_and_its_figures_are_those_of_the_report(page: Page, report: Report) -> None:
    part = step(page, 2)
    run_and_reveal(part, "Neither")
    assert all(part.locator(".card .text").all_inner_texts())
    figures = [report.measured[stage]["stops by itself"].value for stage in ("base", "sft")]
    expect(part.locator("li")).to_contain_text(
        f"stops by itself: base {100 * figures[0]:.1f} %, SFT {100 * figures[1]:.1f} %"
    )


def test_a_ranking_is_compared_with_the_rewards(page: Page) -> None:
    part = step(page, 4)
    run_and_reveal(part, "A", "C")
    expect(part.locator(".found")).to_contain_text("You rank A, B, C.")


def test_the_length_trap_reads_what_is_typed(page: Page, family: LoadedFamily) -> None:
    part = step(page, 5)
    part.get_by_role("textbox").fill("Count sheep.")
    run_and_reveal(part, "Better")
    assert part.locator(".card .text").all_inner_texts() == ["Count sheep.", "Count sheep. Count sheep."]
    part.get_by_role("textbox").fill(ADVICE)
    part.get_by_role("button", name="Run").click()
    expect(part.locator(".explanation")).to_have_count(0)


def test_a_step_fills_compare_and_sends(page: Page) -> None:
    step(page, 2).get_by_role("button", name="Try other seeds in Compare").click()
    expect(page.get_by_label("Prompt")).to_have_value("How can I sleep better?")
    expect(page.locator(".stage:is([data-state=stopped], [data-state=cut])")).to_have_count(3)
    expect(page.get_by_role("tab", name="Compare")).to_have_attribute("aria-selected", "true")


def test_the_first_step_hides_the_names_in_compare_and_the_next_shows_them(page: Page) -> None:
    step(page, 0).get_by_role("button", name="Guess in Compare").click()
    expect(page.locator(".place .stage:is([data-state=stopped], [data-state=cut])[data-letter]")).to_have_count(3)
    expect(page.get_by_label("Guess mode")).to_be_checked()
    expect(page.locator(".place .stage h2")).to_have_text(["A", "B", "C"])
    page.get_by_role("tab", name="Lesson").click()
    step(page, 2).get_by_role("button", name="Try other seeds in Compare").click()
    expect(page.get_by_label("Guess mode")).not_to_be_checked()
    expect(page.locator(".place .stage.sft:is([data-state=stopped], [data-state=cut])")).to_have_count(1)


def test_the_last_step_opens_the_report_card(page: Page) -> None:
    step(page, 7).get_by_role("button", name="See its limits").click()
    expect(page.locator("#report-card .question").first).to_be_visible()


def test_paper_shows_all_steps_and_nothing_else(page: Page) -> None:
    expect(page.locator("#handout")).to_be_hidden()
    page.evaluate("window.print = () => { window.printed = true; }")
    page.get_by_role("button", name="Print as a handout").click()
    page.wait_for_function("window.printed")
    page.emulate_media(media="print")
    expect(page.locator("#handout .paper:visible")).to_have_count(len(STEPS))
    for number, wanted in enumerate(STEPS):
        expect(page.locator("#handout .paper").nth(number)).to_contain_text(wanted.question)
        expect(page.locator("#handout .teacher")).to_contain_text(wanted.explanation)
    for hidden in (".masthead", "#steps", "#lesson-head", "#step-0", "#small-print"):
        expect(page.locator(hidden)).to_be_hidden()
    page.emulate_media(media="screen")
    page.get_by_role("tab", name="Compare").click()
    page.emulate_media(media="print")
    expect(page.locator(".masthead")).to_be_visible()
    expect(page.locator("#handout")).to_be_hidden()


def test_a_narrow_screen_does_not_scroll_sideways(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    run_and_reveal(step(page, 6))
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def views(*rewards: float) -> list[View]:
    return [View("sft", "stopped", DIET, text="Eat.", reward=reward) for reward in rewards]


def test_findings_follow_from_the_answers() -> None:
    assert "2 of these 3" in agreement([1.0, 2.0, 0.0], "A", "C")
    assert "Choose" in agreement([1.0, 2.0, 0.0], "A", "A")
    assert "higher (+0.50)" in finding(5, views(1.0, 1.5), None, None)
    assert "about the same" in finding(6, views(1.0, 1.05), None, None)
    assert "picks B. Your favourite came out at place 3." in finding(7, views(1, 3, 2, 0, 0, 0), "A", None)
    assert "no reward model" in finding(7, [View("sft", "stopped")] * 6, "A", None)
    assert "failed" in finding(2, [View("sft", "failed", error="x")], None, None)
