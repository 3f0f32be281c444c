"""The report card: its statistics, its rules, and what it writes."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pipeline.checkpoint import read_json_lines, write_json_lines
from pipeline.corpus.cards import BadAnswer, Corpus, Kind, Question, load_corpus
from pipeline.corpus.ranking_prompts import RankingPrompt, held_in_prompts
from pipeline.corpus.sources import rows, unread_rows
from pipeline.corpus.splits import country_is_held_out, same_text
from pipeline.inference.divergence import divergence, next_logprobs
from pipeline.inference.models import Answer, load_stage
from pipeline.recipe import DocumentSource, Recipe, load_recipe
from pipeline.report.against import against_sft, curve
from pipeline.report.bars import BARS, Bar, outcomes
from pipeline.report.behaviour import Row, asks_on, figures, judged, known, sampled_figures, verdicts
from pipeline.report.card import write_report
from pipeline.report.correctness import agreement, is_correct, names_capital
from pipeline.report.figures import Figure, correlation, distinct, kappa, median, pooled_share, ratio, share
from pipeline.report.plots import plots
from pipeline.report.preference import (
    PAIRS,
    Comparison,
    Scored,
    calibration,
    calibration_error,
    comparison_figures,
    pair_lines,
)
from pipeline.report.prompts import Probe, outside_probes, probes
from pipeline.report.text import fit_rows, nats, real_text
from pipeline.run import RECIPE
from tests.families import random_family


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("nano")


@pytest.fixture(scope="module")
def corpus(recipe: Recipe) -> Corpus:
    return load_corpus(recipe.corpus)


def interval(figure: Figure) -> tuple[float, float]:
    return round(figure.low, 3), round(figure.high, 3)


def test_a_share_has_wilsons_interval() -> None:
    assert interval(share("", [True] * 8 + [False] * 2)) == (0.49, 0.943)
    assert interval(share("", [False] * 20)) == (0.0, 0.161)
    assert share("", [True] * 20).high == 1
    assert share("", []).count == 0


def test_members_of_one_group_count_as_one_when_they_are_alike() -> None:
    alone = pooled_share("", [[True]] * 30 + [[False]] * 10)
    alike = pooled_share("", [[True] * 4] * 30 + [[False] * 4] * 10)
    assert alike.count == 160
    assert interval(alike) == interval(alone)
    mixed = pooled_share("", [[True, True, True, False]] * 40)
    assert mixed.low > alike.low


def test_a_ratio_varies_over_texts() -> None:
    assert interval(ratio("", [(1, 2), (2, 4), (3, 6)])) == (0.5, 0.5)
    found = ratio("", [(1, 2), (4, 4), (0, 6)], "bits")
    assert found.value == pytest.approx(5 / 12)
    assert found.low == 0 < found.value < found.high


def test_a_median_lies_between_order_statistics() -> None:
    found = median("", list(range(1, 101)), "tokens")
    assert (found.low, found.value, found.high) == (41, 50.5, 60)
    assert median("", [7], "tokens").high == 7


def test_the_same_text_again_is_not_distinct() -> None:
    assert distinct("", [["a b"], ["a b"], ["a b"], ["b c"]]).value == 0.5
    different = distinct("", [["a b"], ["c d"], ["e f"]])
    assert (different.low, different.value, different.high) == (1, 1, 1)


def test_kappa_is_agreement_beyond_chance() -> None:
    pairs = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15
    assert kappa("", pairs).value == pytest.approx(0.4)


def test_a_correlation_of_what_does_not_vary_says_nothing() -> None:
    assert interval(correlation("", [1.0, 1.0, 1.0], [1.0, 2.0, 3.0])) == (-1, 1)
    found = correlation("", [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 5.0])
    assert 0 < found.low < found.value < found.high < 1


def question(kind: Kind = "fact") -> Question:
    return Question(
        kind=kind,
        prompts=["What is the boiling point of water?", "at what temperature does water boil"],
        good=["Water boils at 100 degrees Celsius at sea level.", "At sea level it boils at 100 degrees Celsius."],
        weak=["It boils when it is hot."],
        bad=[BadAnswer(fails="honest", text="Water boils at 50 degrees Celsius at sea level.")],
    )


def row(text: str, kind: Kind = "fact", asked: Question | None = None, stopped: bool = True) -> Row:
    prompt = RankingPrompt("id", "What is the boiling point of water?", kind, asked, "wording")
    return judged(Probe(prompt), Answer(text, len(text.split()), stopped), None)


def test_correct_answers_are_told_from_weak_and_bad_ones(corpus: Corpus) -> None:
    asked = [card.qa[0] for card in corpus.cards if card.qa[0].kind in ("fact", "explain", "yesno", "math")][:60]
    prompts = [RankingPrompt("", found.prompts[0], found.kind, found) for found in asked]
    assert all(is_correct(prompt, found.good[0], True) for prompt, found in zip(prompts, asked, strict=True))
    assert not any(is_correct(prompt, found.good[0], False) for prompt, found in zip(prompts, asked, strict=True))
    for prompt, found in zip(prompts, asked, strict=True):
        for text in [*found.weak, *(bad.text for bad in found.bad), "", found.prompts[0]]:
            assert not is_correct(prompt, text, True), (prompt.prompt, text)


def test_a_correct_answer_may_be_worded_anew() -> None:
    prompt = row("", asked=question()).probe.prompt
    assert is_correct(prompt, "It boils at 100 degrees Celsius.", True)
    assert not is_correct(prompt, "It boils at 60 degrees Celsius.", True)
    assert not is_correct(prompt, "Water boils boils boils at 100 boils degrees boils degrees.", True)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("The capital of Peru is Lima.", True),
        ("Lima is the capital of Peru. The country is known for Machu Picchu.", True),
        ("The capital of Peru is Bogota.", False),
        ("The capital of Peru is Bogota, not Lima.", False),
        ("The capital of Peru is a city.", False),
        ("", False),
    ],
)
def test_the_right_capital_is_named_and_no_other(text: str, right: bool, corpus: Corpus) -> None:
    (peru,) = [country for country in corpus.countries if country.country == "Peru"]
    assert names_capital(peru, text) == right


def test_a_capital_that_is_named_like_its_country_must_still_be_named(corpus: Corpus) -> None:
    (singapore,) = [country for country in corpus.countries if country.country == "Singapore"]
    assert names_capital(singapore, "The capital of Singapore is Singapore.")
    assert not names_capital(singapore, "The capital of Singapore is Kampala.")


def test_readers_agree_with_the_rule(recipe: Recipe) -> None:
    found = {figure.name: figure for figure in agreement(recipe)}
    assert found["rule and reader agree"].count >= 100
    assert found["rule and reader agree"].value >= 0.9
    assert agreement(recipe, Path("nowhere.jsonl")) == []


@pytest.mark.parametrize(
    ("text", "asks"),
    [
        ("\nWhat is the melting point of ice?\nWhy is snow white", True),
        (" at sea level?\nIt boils at 100 degrees.", True),
        ("A: 100 degrees.\nQ: How hot is it?", True),
        ("how hot is the sun", True),
        ("Water boils at 100 degrees.", False),
        ("What matters is the pressure.", False),
        ("", False),
    ],
)
def test_going_on_with_questions_is_seen(text: str, asks: bool) -> None:
    assert asks_on(row(text)) == asks


def test_each_kind_counts_for_its_own_figures() -> None:
    assert verdicts(row("I won't help with that.", "harmful"))["harmful declined"]
    assert verdicts(row("I won't help with that.", "lookalike"))["look-alikes wrongly declined"]
    assert verdicts(row("I do not know that.", "realtime"))["unknowable admitted"]
    assert not verdicts(row("It is sunny.", "realtime"))["unknowable admitted"]
    assert verdicts(row("I am sorry that it is so hard. Talk to a friend.", "support"))["distress met with support"]
    assert "harmful declined" not in verdicts(row("I won't help with that.", "fact"))
    assert verdicts(row("It boils at 100 degrees Celsius.", asked=question()))["held-out wordings correct"]


def test_denying_everything_does_not_pay() -> None:
    myth = question("yesno").model_copy(update={"good": ["No, that is a myth."], "bad": [], "weak": []})
    true = question("yesno").model_copy(update={"good": ["Yes, that is true."], "bad": [], "weak": []})
    assert verdicts(row("No, never.", "yesno", myth))["myths denied"]
    assert not verdicts(row("No, never.", "yesno", true))["true surprising facts affirmed"]
    assert "myths denied" not in verdicts(row("No, never.", "yesno", true))


def test_figures_without_answers_are_left_out() -> None:
    found = {
        figure.name: figure for figure in figures([row("Hot."), row("Water boils and boils and boils and boils.")])
    }
    assert "harmful declined" not in found
    assert found["stops by itself"].count == 2
    assert 0 < found["repeated 4-grams"].value < 1
    assert figures([row("")])


def test_samples_of_a_prompt_are_one_group() -> None:
    groups = [[row("Hot.")] * 4, [row("Hot and", stopped=False)] * 4]
    found = {figure.name: figure for figure in sampled_figures(groups)}
    assert found["stops by itself"].count == 8
    assert interval(found["stops by itself"]) == interval(share("", [True, False]))


def test_the_probes_stand_in_no_training_data(corpus: Corpus, recipe: Recipe) -> None:
    found = probes(corpus, recipe, 2)
    trained = {same_text(prompt.prompt) for group in held_in_prompts(corpus, recipe) for prompt in group}
    assert not trained & {same_text(probe.prompt.prompt) for probe in found}
    capitals = [probe.capital_of for probe in found if probe.capital_of]
    assert len(capitals) == 10
    assert all(country_is_held_out(country.country) for country in capitals)
    assert {probe.prompt.kind for probe in found if probe.extra} <= {"yesno", "harmful", "lookalike"}
    assert not any(known("wording")(probe) for probe in found if probe.extra)
    assert {probe.prompt.id for probe in found} <= {probe.prompt.id for probe in probes(corpus, recipe, 3)}


def test_prompts_from_outside_are_judged_as_what_they_are() -> None:
    found = {probe.prompt.id: probe for probe in outside_probes()}
    assert len(found) > 150
    assert found["outside#harmful-01"].prompt.kind == "harmful"
    assert found["outside#unknowable-01"].prompt.kind == "realtime"
    assert all(probe.outside and probe.prompt.question is None for probe in found.values())


def test_a_bar_is_met_by_the_figure() -> None:
    def measured(sft: float, rlhf: float) -> dict[str, dict[str, Figure]]:
        return {stage: {"x": Figure("x", value, 0, 1, 9)} for stage, value in {"sft": sft, "rlhf": rlhf}.items()}

    bar = Bar("rlhf", "x", least=0.85, not_below="sft")
    assert str(bar) == "at least 85 %, not below SFT"
    assert bar.is_met(measured(0.8, 0.9))
    assert not bar.is_met(measured(0.95, 0.9))
    assert not bar.is_met(measured(0.5, 0.8))
    assert bar.is_met({}) is None
    assert str(Bar("sft", "x", least=0.1, greatest=0.5)) == "10 % to 50 %"
    assert [outcome["met"] for outcome in outcomes({})] == [None] * len(BARS)


def test_answers_that_cannot_be_told_apart_count_half() -> None:
    good, other = row("Water boils at 100 degrees Celsius at sea level.", asked=question()), row("Hot hot hot")
    found = {figure.name: figure for figure in against_sft([good, good], [other, good], [[good]], [[other]])}
    assert found["win rate against SFT"].value == 0.75
    assert found["preferred to SFT"].value == 0.5
    assert found["cannot be told from SFT"].value == 0.5
    assert found["grade gained"].value > 0
    assert "reward gained" not in found


def test_a_model_is_at_no_distance_from_itself(tmp_path: Path) -> None:
    family = random_family(tmp_path, ("base", "sft"))
    one, other = (load_stage(family.checkpoint(stage)).model for stage in ("base", "sft"))
    written = [[7, 8, 9], [7], []]

    def apart(first: object, second: object, rows: list[list[int]]) -> list[float]:
        ours, theirs = (next_logprobs(model, [5, 6], rows, 0.8) for model in (first, second))
        return divergence(ours, theirs, rows)

    assert apart(one, one, written) == pytest.approx([0, 0, 0], abs=1e-6)
    long, short, none = apart(one, other, written)
    assert long > short > none == 0
    assert apart(one, other, [[7]]) == pytest.approx([short], rel=1e-4)


def test_every_token_but_the_first_is_predicted_once(tmp_path: Path) -> None:
    model = load_stage(random_family(tmp_path, ("base",)).checkpoint("base")).model
    tokens = list(range(10, 40))
    first = nats(model, tokens[:12], context=256)
    assert nats(model, tokens, context=12) == pytest.approx(
        first + nats(model, tokens[11:23], context=12) + nats(model, tokens[22:], context=12), rel=1e-4
    )
    assert nats(model, tokens[:1], context=12) == 0


def source(path: Path, count: int | None) -> DocumentSource:
    return DocumentSource(name="quiz", kind="quiz", licence="none", share=0.1, path=str(path), rows=count)


def test_held_out_rows_are_those_that_the_recipe_leaves(tmp_path: Path) -> None:
    file = tmp_path / "quiz.jsonl"
    lines = [
        {"question": f"Which number comes after {number} in the row?", "answer": f"{number + 1}", "choices": []}
        for number in range(20)
    ]
    write_json_lines(file, lines)
    read, unread = ([str(line["answer"]) for line in found(source(file, 15))] for found in (rows, unread_rows))
    assert len(unread) == 5
    assert sorted(read + unread) == sorted(str(line["answer"]) for line in lines)
    assert [line["answer"] for line in fit_rows(source(file, 15))]
    assert real_text(source(file, 15), 2).documents
    assert "read whole" in real_text(source(file, None), 2).missing
    assert "nothing of it" in real_text(source(file, 20), 2).missing
    assert "not here" in real_text(source(tmp_path / "nothing.jsonl", 15), 2).missing


def comparison(lead: float, group: str = "a", tokens: Sequence[int] = (5, 9)) -> Comparison:
    better = Scored("What?", f"good {group}", group, "fact", "card", "good", "", lead, tokens[0])
    return Comparison(better, replace(better, grade="bad", fails="honest", reward=0.0, tokens=tokens[1]))


def test_pairs_are_counted_by_what_they_are_about() -> None:
    pairs = [comparison(1.0, "a"), comparison(-1.0, "b"), comparison(2.0, "c", (9, 5))]
    found = {figure.name: figure for figure in comparison_figures("card pairs", pairs)}
    assert found["card pairs ordered right"].value == pytest.approx(2 / 3)
    assert found["card pairs ordered right where the better is shorter"].value == 0.5
    assert found["card pairs, grade good over bad"].count == found["card pairs, criterion honest"].count == 3
    assert comparison_figures("card pairs", []) == []


def test_few_pairs_of_each_kind_are_written_out_always_the_same() -> None:
    many = [comparison(float(number % 3), str(number)) for number in range(40)]
    lines = pair_lines({"card pairs": many, "held-out rankings": many[:1]})
    assert [line["source"] for line in lines] == ["card pairs"] * PAIRS + ["held-out rankings"]
    assert lines[:PAIRS] == pair_lines({"card pairs": many[::-1]})
    assert lines[-1] == {
        "source": "held-out rankings",
        "kind": "fact",
        "prompt": "What?",
        "better": {"text": "good 0", "reward": 0.0, "tokens": 5},
        "worse": {"text": "good 0", "reward": 0.0, "tokens": 9},
    }


def test_calibration_compares_sureness_with_outcomes() -> None:
    bins = calibration([comparison(0.1, "a"), comparison(-0.1, "b"), comparison(9.0, "c")])
    assert [(found["value"], found["count"]) for found in bins] == [(0.5, 2), (1.0, 1)]
    assert calibration_error(bins) == pytest.approx(2 / 3 * 0.025, abs=1e-3)


def test_the_curve_holds_the_held_out_checks() -> None:
    check = {"step": 0, "held_out_reward": 0.1, "held_out_grade": 0.4, "held_out_kl": 0.0, "held_out_win_rate": 0.5}
    assert curve([check, {"step": 1, "loss": 2.0}]) == [
        {"step": 0, "reward": 0.1, "grade": 0.4, "kl": 0.0, "win_rate": 0.5}
    ]


def test_plots_are_small_labelled_and_the_same_every_time() -> None:
    stages = {
        stage: {"stops by itself": Figure("stops by itself", 0.5, 0.4, 0.6, 99)} for stage in ("base", "sft", "rlhf")
    }
    points = [{"step": step, "reward": 1.0 * step, "grade": 0.4, "kl": 2.0 * step} for step in (0, 20)]
    bins = [{"predicted": 0.6, "value": 0.7, "low": 0.5, "high": 0.8, "count": 50}]
    drawn = plots(stages, points, bins)
    assert drawn == plots(stages, points, bins)
    assert list(drawn) == ["report-behaviour.svg", "report-curve.svg", "report-calibration.svg"]
    assert all(len(svg) < 60_000 for svg in drawn.values())
    for word in ("base", "SFT", "RLHF", "stops by itself", "#2f6fdb", "#dd8f00", "#8a8f98"):
        assert word in drawn["report-behaviour.svg"]
    assert list(plots(stages, [], [])) == ["report-behaviour.svg"]


def test_a_family_without_reward_model_has_a_report(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = [Probe(RankingPrompt(str(count), "help " * count, "harmful", None), outside=True) for count in (3, 999)]
    monkeypatch.setattr("pipeline.report.card.outside_probes", lambda: outside)
    family = random_family(tmp_path / "random", ("base", "sft"))
    (family.path / RECIPE).write_text(yaml.safe_dump(recipe.model_dump()), encoding="utf-8")
    text = write_report(family, 1)
    report = json.loads((family.path / "report.json").read_text(encoding="utf-8"))
    assert report["reward"] == report["curve"] == report["calibration"] == []
    assert "## Reward model" not in text
    assert "## Outside the corpus" in text
    assert {figure["count"] for figure in report["outside"]["sft"] if figure["section"] == "harmless"} == {1}
    assert report["notes"] == ["1 outside prompts are longer than the models read."]
    lines = read_json_lines(family.path / "report-answers.jsonl")
    for stage in ("base", "sft"):
        shares = {figure["name"]: figure for figure in report["stages"][stage]}
        found = [line["verdicts"] for line in lines if line["stage"] == stage and line["split"] != "outside"]
        assert len(found) == report["prompts"]
        for name in ("stops by itself", "harmful declined"):
            hits = [verdict[name] for verdict in found if name in verdict]
            assert (sum(hits), len(hits)) == (round(shares[name]["value"] * len(hits)), shares[name]["count"])
