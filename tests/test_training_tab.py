"""The Training tab in a real browser."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from pipeline.checkpoint import write_json_lines
from pipeline.inference.decoding import Decoding
from pipeline.inference.examples import TrainingData
from pipeline.inference.snapshots import TimeLine
from tests.browsing import PATIENCE, served
from tests.families import PROMPTS, SNAPSHOTS, STEPS, add_past, measured, random_family
from ui.answering import LoadedFamily, load
from ui.examples import SHOWN

STAGES = ("base", "sft", "reward", "rlhf", "dpo")


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> LoadedFamily:
    family = random_family(tmp_path_factory.mktemp("families") / "past", STAGES)
    add_past(family)
    return load(family.path)


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    for page in opened(browser, address):
        # What opening the tab brings would come over what a test does meanwhile.
        expect(heading(page)).to_have_text("After step 0: still SFT")
        yield page


def opened(browser: Browser, address: str) -> Iterator[Page]:
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    errors: list[Any] = []
    page.on("pageerror", lambda error: errors.append(error))
    page.goto(address)
    page.get_by_role("tab", name="Training").click()
    # What is said about the stage is gone as soon as its log turns out to be damaged.
    page.locator("#training-stage").wait_for()
    yield page
    page.close()
    assert errors == []


def choose(page: Page, name: str, stage: str) -> None:
    page.locator("#training-stage").get_by_text(name, exact=True).click()
    page.locator(f"#curves .curves.{stage}").wait_for()


def slide(page: Page, index: int) -> None:
    page.locator("#step input[type=range]").fill(str(index))


def heading(page: Page) -> Locator:
    return page.locator("#training .reached h3")


def plain(text: str | None) -> str:
    """What a browser keeps of random tokens for sure."""
    return re.sub(r"[^!-~]", "", text or "")


def charts(page: Page) -> dict[str, Locator]:
    """Every chart by its title."""
    return {figure.locator("h3").inner_text(): figure for figure in page.locator("#curves figure").all()}


def lines(figure: Locator) -> dict[str, list[list[float]]]:
    """The points of a chart's lines, that of training without a name."""
    return dict(json.loads(figure.get_attribute("data-chart") or "")["lines"])


@pytest.mark.parametrize(
    ("name", "stage", "title", "field", "factor"),
    [
        ("Base", "base", "Loss nats a token", "loss", 1),
        ("SFT", "sft", "Next token right % of tokens", "mean_token_accuracy", 100),
        ("Reward model", "reward", "Accuracy % of pairs", "accuracy", 100),
        ("RLHF", "rlhf", "KL from SFT nats an answer", "kl", 1),
        ("DPO", "dpo", "Worse answers gain since SFT", "rewards/rejected", 1),
    ],
)
def test_the_curves_of_every_stage_are_drawn(
    page: Page, name: str, stage: str, title: str, field: str, factor: int
) -> None:
    choose(page, name, stage)
    expect(page.locator("#training .about-stage h2")).to_have_text(name)
    records = [measured(stage, step) for step in range(0, STEPS + 1, 2)]
    expected = [[record["step"], factor * record[field]] for record in records if field in record]
    figure = charts(page)[title]
    assert lines(figure)[""] == [pytest.approx(point) for point in expected]
    drawn = figure.locator(".training")
    places = [list(map(float, point.split(","))) for point in (drawn.get_attribute("points") or "").split()]
    assert len(places) == len(expected)
    # Higher values stand higher, at their steps from left to right.
    assert places == sorted(places)
    rising = expected[-1][1] > expected[0][1]
    assert (places[-1][1] < places[0][1]) == rising


def test_held_out_checks_stand_in_the_same_picture(page: Page) -> None:
    figure = charts(page)["Reward mean of the answers"]
    checks = [[step, step / 20] for step in range(0, STEPS + 1, 10)]
    assert lines(figure)["held-out"] == checks
    assert figure.locator("circle").count() == len(checks)
    expect(figure.locator(".key")).to_have_text(re.compile("in training.*on held-out data"))


def test_the_slider_moves_the_marker_and_changes_the_answer(page: Page, family: LoadedFamily) -> None:
    time_line = TimeLine(family.files, family.local["sft"], family.local["rlhf"])
    assert time_line.steps == [0, *SNAPSHOTS]
    page.locator("#training").get_by_text(PROMPTS[1], exact=True).click()
    expect(page.get_by_label("Prompt of the time line")).to_have_value(PROMPTS[1])
    marks = []
    for index in (2, 0, 1):
        step = time_line.steps[index]
        slide(page, index)
        expect(heading(page)).to_have_text(re.compile(rf"^After step {step}\b"))
        expect(page.locator("#training .score b")).to_have_text(re.compile(r"^[+\u2212]\d"))
        [answer] = time_line.model(step).answers([PROMPTS[1]], Decoding(temperature=0))
        shown = plain(page.locator("#training .reached .text").text_content())
        assert shown == plain(answer.text)
        reward = family.reward.scores([(PROMPTS[1], answer.text)], [answer.stopped])[0] if family.reward else None
        assert page.locator("#training .score b").inner_text() == f"{reward:+.2f}".replace("-", "\u2212")
        marks.append((index, shown, page.locator("#curves .marker").first.bounding_box()))
        expect(page.locator("#curves .reading").first).to_contain_text(f"(step {step})" if step else "Step")
    assert len({shown for _, shown, _ in marks}) == 3
    places = [box["x"] for _, _, box in sorted(marks, key=lambda mark: mark[0]) if box]
    assert places == sorted(set(places))
    assert len(places) == 3


def test_a_prompt_of_ones_own_is_answered_at_the_step(page: Page, family: LoadedFamily) -> None:
    slide(page, 1)
    expect(heading(page)).to_contain_text(f"{SNAPSHOTS[0]}")
    page.get_by_label("Prompt of the time line").fill("Tell me more")
    page.get_by_label("Prompt of the time line").press("Enter")
    policy = TimeLine(family.files, family.local["sft"], family.local["rlhf"]).model(SNAPSHOTS[0])
    [answer] = policy.answers(["Tell me more"], Decoding(temperature=0))
    page.wait_for_function(
        "(text) => document.querySelector('#training .reached .text').textContent.replace(/[^!-~]/g, '') === text",
        arg=plain(answer.text),
        polling=100,
    )
    expect(page.locator("#training-prompts input:checked")).to_have_count(0)
    page.get_by_label("Prompt of the time line").fill(" ")
    page.get_by_label("Prompt of the time line").press("Enter")
    expect(page.locator("#training").get_by_role("alert")).to_contain_text("the prompt is empty")


def test_play_walks_over_all_steps(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ui.training.SECONDS_A_STEP", 0)
    expect(heading(page)).to_have_text("After step 0: still SFT")
    page.get_by_role("button", name="Play").click()
    expect(heading(page)).to_have_text(f"After step {STEPS}")
    expect(page.locator("#step input[type=range]")).to_have_value(str(len(SNAPSHOTS)))
    expect(page.locator("#curves [data-steps]")).to_have_attribute("data-step", str(STEPS))


def test_base_shows_what_was_written_down_during_training(page: Page) -> None:
    choose(page, "Base", "base")
    expect(page.locator("#training .about-stage")).to_contain_text("written down during training")
    expect(heading(page)).to_have_text("After step 0: random numbers")
    expect(page.get_by_label("Prompt of the time line")).to_have_count(0)
    slide(page, 1)
    expect(heading(page)).to_have_text("After step 25")
    expect(page.locator("#training .reached .text")).to_have_text(f"25 times {PROMPTS[0]}")
    expect(page.locator("#curves [data-steps]")).to_have_attribute("data-step", "25")


def test_a_value_is_read_at_the_pointer(page: Page) -> None:
    choose(page, "Base", "base")
    figure = page.locator("#curves figure").first
    box = figure.locator("svg .grid").first.bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] - 10)
    expect(figure.locator(".reading")).to_have_text(f"Step {STEPS // 2}: {8 - STEPS / 20:.2f}")
    page.mouse.move(0, 0)
    expect(figure.locator(".reading")).to_have_text("Step 0: 8.00")


def test_examples_page_forward_and_back(page: Page, family: LoadedFamily) -> None:
    page.get_by_role("button", name="What it was trained on").click()
    articles = page.locator("#examples article")
    position = page.locator("#turning")
    expect(articles).to_contain_text(["Prompt of step 1?"])
    expect(page.get_by_role("button", name="Previous")).to_be_disabled()
    page.get_by_role("button", name="Next").click()
    expect(articles).to_contain_text(["Prompt of step 2?"])
    expect(position).to_contain_text(f"Page 2 of {STEPS}")
    page.get_by_role("button", name="Previous").click()
    expect(articles).to_contain_text(["Prompt of step 1?"])
    page.get_by_role("button", name="Shuffle").click()
    expect(page.locator("#examples .source")).not_to_contain_text("Step 1,")
    choose(page, "SFT", "sft")
    written = TrainingData(family.files).demonstrations[: SHOWN["sft"].a_page]
    expect(page.locator("#examples .given")).to_have_text([item.answer for item in written])
    expect(page.locator("#examples .grade")).to_have_text([f"A {item.grade} answer" for item in written])
    choose(page, "Base", "base")
    expect(page.locator("#examples .source").first).to_be_visible()
    expect(page.locator("#examples .about")).to_contain_text("question papers")


def test_a_family_without_a_past_says_so(browser: Browser, tmp_path: Path) -> None:
    family = load(random_family(tmp_path / "bare", ("base", "sft")).path)
    for address in served(family):
        for page in opened(browser, address):
            page.locator("#curves").get_by_text("There are no curves").wait_for()
            expect(page.locator("#training .about-stage")).to_contain_text("No answers were kept")
            page.get_by_role("button", name="What it was trained on").click()
            expect(page.locator("#examples")).to_contain_text("There are no examples: no recipe")
            assert page.locator("#training-stage label").all_inner_texts() == ["Base", "SFT"]


def test_a_damaged_log_leaves_the_rest_alone(browser: Browser, tmp_path: Path) -> None:
    family = random_family(tmp_path / "torn", ("base", "sft", "reward", "rlhf"))
    add_past(family)
    loaded = load(family.path)
    for address in served(loaded):
        write_json_lines(family.path / "rlhf" / "metrics.jsonl", [{"loss": 1}])
        for page in opened(browser, address):
            page.locator("#curves").get_by_text("truncated or altered").wait_for()
            choose(page, "Base", "base")


@pytest.mark.parametrize("width", [390, 768])
def test_a_narrow_screen_never_scrolls_sideways(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    for name, stage in (("Base", "base"), ("RLHF", "rlhf")):
        choose(page, name, stage)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
