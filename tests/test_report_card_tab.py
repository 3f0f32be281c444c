"""The report card in a real browser, with a report that was really made, of a random family."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from playwright.sync_api import Browser, Locator, Page, expect

from pipeline.checkpoint import Family, read_json_lines, write_json_lines
from pipeline.errors import InputError
from pipeline.recipe import load_recipe
from pipeline.report.card import write_report
from pipeline.report.prompts import probes
from pipeline.report.reading import read_report
from pipeline.run import RECIPE
from tests.browsing import PATIENCE, served
from tests.families import random_family
from tests.hostile import LEAKS, client, post
from ui.answering import load
from ui.report_card import PER_PAGE, QUESTIONS


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """A family of random weights with its real report, on few prompts and without what the tab does not show."""
    family = random_family(tmp_path_factory.mktemp("families") / "random")
    (family.path / RECIPE).write_text(yaml.safe_dump(load_recipe("nano").model_dump()), encoding="utf-8")
    check = {"held_out_reward": 0.1, "held_out_grade": 0.4, "held_out_kl": 0.2, "held_out_win_rate": 0.5}
    write_json_lines(family.path / "rlhf" / "metrics.jsonl", [{"step": step} | check for step in (0, 20)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.report.card.probes", lambda corpus, recipe, each: probes(corpus, recipe, each)[::2])
        patch.setattr("pipeline.report.card.outside_probes", list)
        patch.setattr("pipeline.report.card.SAMPLES", 1)
        patch.setattr("pipeline.report.against.SAMPLES", 1)
        patch.setattr("pipeline.report.card.held_out_texts", lambda recipe, corpus, each: [])
        patch.setattr("pipeline.report.card.agreement", lambda recipe: [])
        write_report(family, 1)
    answers = read_json_lines(family.path / "report-answers.jsonl")
    answers[0]["prompt"] = answers[0]["text"] = "<b>bold</b> & ${1+1} {{value}}"
    write_json_lines(family.path / "report-answers.jsonl", answers)
    return family


@pytest.fixture(scope="module")
def address(family: Family) -> Iterator[str]:
    yield from served(load(family.path))


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    page = opened(browser, address)
    yield page
    page.close()


def opened(browser: Browser, address: str, width: int = 1280) -> Page:
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.get_by_role("tab", name="Report card").click()
    page.locator("#report-card").wait_for()
    return page


def asked(page: Page, text: str) -> Locator:
    return page.locator(".question").filter(has=page.get_by_role("heading", name=text))


def test_what_is_asked_past_the_page_is_refused_in_one_line(address: str) -> None:
    components = client(address).get("config").json()["components"]
    [card] = [each["id"] for each in components if each["props"].get("elem_id") == "report-card"]
    odd: list[Any] = [
        {},
        [],
        None,
        {"question": 10**6, "group": "rlhf", "page": 0},
        {"question": 0, "group": "../sft", "page": 0},
    ]
    asked = [(card, "answers", data) for data in odd] + [(card, name, None) for name in ("launch", "__class__", "")]
    for component, function, data in [*asked, (10**6, "plots", None)]:
        body = {"session_hash": "strange", "component_id": component, "fn_name": function, "data": data}
        answer = post(address, "gradio_api/component_server", json.dumps(body))
        assert answer.status_code in (404, 422), body
        assert len(answer.text) < 100
        assert not LEAKS.search(answer.text)


def test_every_figure_and_goal_is_that_of_the_report(page: Page, family: Family) -> None:
    report = json.loads((family.path / "report.json").read_text(encoding="utf-8"))
    expect(page.locator(".question")).to_have_count(len(QUESTIONS))
    for question in QUESTIONS:
        row = asked(page, question.text)
        shown = row.locator(".value b").all_inner_texts()
        figures = [
            figure
            for name in question.figures
            for found in [*report["stages"].values(), report["reward"]]
            for figure in found
            if figure["name"] == name
        ]
        assert [text for text in shown if text != "\N{EN DASH}"] == [
            f"{figure['value']:+.2f}".replace("-", "\N{MINUS SIGN}")
            if figure["unit"] == "correlation"
            else f"{100 * figure['value']:.1f} %"
            for figure in figures
        ]
        counts = [text for text in row.locator(".value small").all_inner_texts() if text]
        for text, figure in zip(counts, figures, strict=True):
            assert f"{figure['count']:,} " in text
    goals = page.locator(".goal span").all_inner_texts()
    assert sorted(goals) == sorted("Goal: " + bar["bar"].replace("-", "\N{MINUS SIGN}") for bar in report["bars"])
    met = [bar["met"] for bar in report["bars"]]
    assert page.locator(".goal b").all_inner_texts().count("Met") == met.count(True)
    expect(page.locator(".summary")).to_contain_text(f"{met.count(True)} of {len(met)} bars are met")
    expect(page.locator(".plots img")).to_have_count(len(list(family.path.glob("report-*.svg"))))


def test_the_answers_behind_a_figure_come_failures_first_and_page_by_page(page: Page, family: Family) -> None:
    lines = [line for line in read_json_lines(family.path / "report-answers.jsonl") if line["stage"] == "rlhf"]
    name = "answers rather than continues"
    counted = [line for line in lines if name in line["verdicts"]]
    wrong = [line for line in counted if not line["verdicts"][name]]
    row = asked(page, "Does it answer, or go on?")
    row.get_by_role("button", name="Answers").click()
    items = row.locator("li")
    expect(items).to_have_count(PER_PAGE)
    assert (
        row.locator(".prompt").all_inner_texts()
        == [line["prompt"] for line in wrong + [line for line in counted if line["verdicts"][name]]][:PER_PAGE]
    )
    assert "failed" in (items.first.get_attribute("class") or "")
    expect(row.locator(".turning")).to_contain_text(f"1 to {PER_PAGE} of {len(counted)}")
    row.get_by_role("button", name="More").click()
    expect(row.locator(".turning")).to_contain_text(f"{PER_PAGE + 1} to")
    row.get_by_role("button", name="Answers").click()
    expect(items.first).to_be_hidden()


def test_another_stage_is_chosen_by_keyboard_and_its_markup_is_text(page: Page, family: Family) -> None:
    row = asked(page, "Does it stop by itself?")
    row.get_by_role("button", name="Answers").press("Enter")
    expect(row.get_by_role("button", name="RLHF")).to_have_attribute("aria-pressed", "true")
    row.get_by_role("button", name="Base").press("Enter")
    base = row.get_by_role("button", name="Base")
    expect(base).to_have_attribute("aria-pressed", "true")
    expect(base).to_be_focused()
    expect(row.locator(".text").first).to_have_text("<b>bold</b> & ${1+1} {{value}}")
    assert row.locator(".prompt b, .text b").count() == 0


def test_rlhf_stands_beside_sft_where_they_are_compared(page: Page) -> None:
    row = asked(page, "Is RLHF better than SFT?")
    row.get_by_role("button", name="Answers").click()
    expect(row.locator(".rival").first).to_contain_text("SFT")


def test_the_pairs_behind_the_reward_model_come_failures_first(page: Page, family: Family) -> None:
    pairs = [line for line in read_json_lines(family.path / "report-pairs.jsonl") if line["source"] == "card pairs"]
    wrong = [pair for pair in pairs if pair["better"]["reward"] <= pair["worse"]["reward"]]
    row = asked(page, "Can the reward model tell good from bad?")
    row.get_by_role("button", name="Answers").click()
    expect(row.locator("li.failed")).to_have_count(min(PER_PAGE, len(wrong)))
    expect(row.locator("li .text").first).to_contain_text(wrong[0]["better"]["text"])
    expect(row.locator("li .rival").first).to_contain_text(wrong[0]["worse"]["text"])
    expect(row.locator(".turning")).to_contain_text(f"of {len(pairs)}")
    shorter = [pair for pair in pairs if pair["better"]["tokens"] < pair["worse"]["tokens"]]
    row = asked(page, "Does the reward model just like length?")
    row.get_by_role("button", name="Answers").click()
    expect(row.locator(".turning")).to_contain_text(f"of {len(shorter)}")
    expect(row.get_by_role("button", name="Cards")).to_have_attribute("aria-pressed", "true")


def test_a_family_without_a_report_says_how_to_make_one(browser: Browser, tmp_path: Path) -> None:
    family = random_family(tmp_path / "new", ("base",))
    for address in served(load(family.path)):
        page = opened(browser, address)
        expect(page.locator("#report-card")).to_contain_text(f"pipeline report --family checkpoints/{family.name}")
        page.close()


@pytest.mark.parametrize("width", [390, 1024])
def test_nothing_scrolls_sideways(browser: Browser, address: str, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(address)
    page.get_by_role("tab", name="Report card", exact=True).dispatch_event("click")
    asked(page, "Does it refuse harm?").get_by_role("button", name="Answers").click()
    page.locator(".behind li").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_losses_come_first_and_capitals_are_left_out(tmp_path: Path) -> None:
    def line(stage: str, name: str, grade: float, split: str = "card") -> dict[str, object]:
        return {"stage": stage, "id": name, "grade": grade, "split": split, "text": "", "verdicts": {}}

    grades = {"lost": (0.2, 0.9), "tied": (0.5, 0.52), "won": (0.9, 0.1)}
    lines = [line(stage, name, pair[stage == "sft"]) for name, pair in grades.items() for stage in ("rlhf", "sft")] + [
        line(stage, "capital", 0.0, "country") for stage in ("rlhf", "sft")
    ]
    write_json_lines(tmp_path / "report-answers.jsonl", lines)
    (tmp_path / "report.json").write_text("{}", encoding="utf-8")
    report = read_report(Family(tmp_path))
    assert report
    assert [(found.line["id"], found.hit) for found in report.against_sft("rlhf")] == [
        ("lost", False),
        ("tied", True),
        ("won", True),
    ]


def test_a_damaged_report_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"report\.json is not JSON"):
        read_report(Family(tmp_path))
