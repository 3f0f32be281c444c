"""The ranking stage samples, ranks and documents, and goes on where it was stopped."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.annotator import admits_ignorance, declines, stems
from pipeline.checkpoint import Checkpoint, Family, read_json_lines
from pipeline.corpus.cards import load_corpus
from pipeline.corpus.ranking_prompts import RankingPrompt, held_out_texts, ranking_prompts
from pipeline.corpus.splits import same_text
from pipeline.errors import InputError
from pipeline.recipe import Recipe, load_recipe
from pipeline.stages import ranking
from tests.families import random_family

BATCH = 8


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    nano = load_recipe("nano")
    settings = {"prompts": 5 * BATCH, "answers": 3, "max_new_tokens": 12, "batch_size": BATCH, "held_out": 0.3}
    return nano.model_copy(update={"ranking": nano.ranking.model_copy(update=settings)})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> Checkpoint:
    return ranking.run(recipe, random_family(tmp_path_factory.mktemp("ranking") / "family", ("base", "sft")))


@pytest.fixture(scope="module")
def rankings(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    return checkpoint.lines("rankings.jsonl")


def test_every_line_is_a_ranking_of_the_documented_form(rankings: list[dict[str, Any]], recipe: Recipe) -> None:
    prompts = {prompt.id: prompt for prompt in ranking_prompts(load_corpus(recipe.corpus), recipe)}
    assert [line["id"] for line in rankings] == [name for name in prompts if name in {line["id"] for line in rankings}]
    for line in rankings:
        assert list(line) == ["id", "prompt", "kind", "answers", "annotator", "split"]
        assert (line["prompt"], line["kind"]) == (prompts[line["id"]].prompt, prompts[line["id"]].kind)
        assert (line["annotator"], line["split"] in ("train", "test")) == ("simulated", True)
        texts = [answer["text"] for answer in line["answers"]]
        assert len(texts) == len(set(texts)) >= 2
        levels = {answer["rank"] for answer in line["answers"]}
        assert levels == set(range(1, len(levels) + 1))
        for answer in line["answers"]:
            assert list(answer) == ["text", "stopped", "source", "rank", "grade"]
            assert list(answer["grade"]) == ["helpful", "honest", "harmless", "overall"]
            assert all(0 <= value <= 1 for value in answer["grade"].values())


def test_references_of_the_card_join_and_win(rankings: list[dict[str, Any]], recipe: Recipe) -> None:
    prompts = {prompt.id: prompt for prompt in ranking_prompts(load_corpus(recipe.corpus), recipe)}
    carded = [line for line in rankings if prompts[line["id"]].question]
    assert carded
    for line in carded:
        question = prompts[line["id"]].question
        assert question is not None
        by_source = {answer["source"]: answer for answer in line["answers"]}
        assert by_source["good"]["text"] in question.good
        assert by_source["bad"]["text"] in [bad.text for bad in question.bad]
        assert ("weak" in by_source) == bool(question.weak)
        assert by_source["good"]["rank"] < by_source["bad"]["rank"]
        assert by_source["good"]["rank"] < by_source["sft"]["rank"]
    for line in rankings:
        assert sum(answer["source"] == "sft" for answer in line["answers"]) <= 3
        if line not in carded:
            assert {answer["source"] for answer in line["answers"]} <= {"sft", "cautious", "other"}


def test_training_rankings_hold_an_answer_that_holds_back(rankings: list[dict[str, Any]], recipe: Recipe) -> None:
    good = ranking.good_answers(load_corpus(recipe.corpus), recipe)
    cautious = {answer for answer, _ in ranking.holding_back(good)}
    assert all(declines(text) or admits_ignorance(text) for text in cautious)
    for line in rankings:
        added = [answer["text"] for answer in line["answers"] if answer["source"] == "cautious"]
        # One that the card has as well counts as the card's.
        assert len(added) <= (line["split"] == "train" and line["kind"] in ranking.IN_QUESTION)
        assert set(added) <= cautious
    known = [line for line in rankings if line["kind"] == "lookalike" and line["split"] == "train"]
    by_source = [{answer["source"]: answer["rank"] for answer in line["answers"]} for line in known]
    both = [ranks for ranks in by_source if {"good", "cautious"} <= set(ranks)]
    assert both
    assert all(ranks["good"] < ranks["cautious"] for ranks in both)


def test_training_rankings_hold_an_answer_to_another_question(rankings: list[dict[str, Any]], recipe: Recipe) -> None:
    good = {answer for answer, _ in ranking.good_answers(load_corpus(recipe.corpus), recipe)}
    asked = {prompt.id: prompt.question for prompt in ranking_prompts(load_corpus(recipe.corpus), recipe)}
    for line in rankings:
        others = [answer for answer in line["answers"] if answer["source"] == "other"]
        assert len(others) <= (line["split"] == "train")
        question = asked[line["id"]]
        for other in others:
            assert other["text"] in good
            assert not (question and other["text"] in question.good)
    assert any(answer["source"] == "other" for line in rankings for answer in line["answers"])


def test_the_answer_from_elsewhere_belongs_to_a_question_in_similar_words() -> None:
    cautious = ranking.Elsewhere(
        [
            ("I can't help rob a bank.", stems("How can I rob a bank?")),
            ("I can't see rain.", stems("Is it raining?")),
        ]
    )
    for prompt, answer in (
        ("Where is the river bank?", "I can't help rob a bank."),
        ("Why is it raining?", "I can't see rain."),
    ):
        asked = RankingPrompt("1", prompt, "fact", None)
        assert cautious.nearest(asked, "cautious", seed=1)["text"] == answer


def test_without_references_only_the_models_answers_are_ranked(recipe: Recipe, tmp_path: Path) -> None:
    settings = recipe.ranking.model_copy(update={"references": False, "prompts": BATCH})
    plain = recipe.model_copy(update={"ranking": settings})
    family = random_family(tmp_path / "family", ("base", "sft"))
    lines = ranking.run(plain, family).lines("rankings.jsonl")
    assert {answer["source"] for line in lines for answer in line["answers"]} == {"sft"}


def test_one_question_is_never_on_both_sides(rankings: list[dict[str, Any]], recipe: Recipe) -> None:
    assert {line["split"] for line in rankings} == {"train", "test"}
    prompts = ranking_prompts(load_corpus(recipe.corpus), recipe)
    question = next(prompt for prompt in prompts if prompt.question)
    for held_out in (0.1, 0.5, 0.9):
        wordings = [
            ranking.split(RankingPrompt(text, text, question.kind, question.question), held_out)
            for text in question.question.prompts  # type: ignore[union-attr]
        ]
        assert len(set(wordings)) == 1


def test_the_record_holds_the_figures(checkpoint: Checkpoint, rankings: list[dict[str, Any]]) -> None:
    figures = checkpoint.figures
    answers = [answer for line in rankings for answer in line["answers"]]
    sampled = [answer for answer in answers if answer["source"] == "sft"]
    assert figures["prompts"] == len(rankings)
    assert figures["answers"] == len(answers)
    assert figures["finished"] == pytest.approx(sum(answer["stopped"] for answer in sampled) / len(sampled), abs=1e-3)
    assert 0.8 < figures["agreement"] < 1
    assert set(figures["grade_by_kind"]) == {line["kind"] for line in rankings}
    assert figures["declined_harmful"] == 0
    metrics = checkpoint.lines("metrics.jsonl")
    assert [line["batch"] for line in metrics] == [1, 2, 3, 4, 5]
    assert sum(line["answers"] for line in metrics) == len(sampled)
    assert checkpoint.record["parent"]["stage"] == "sft"
    card = (checkpoint.path / "README.md").read_text()
    assert "`rank`" in card
    assert f"- prompts: {len(rankings)}" in card
    assert not (checkpoint.path.parent / ".work" / "ranking").exists()


def test_a_broken_run_goes_on_to_the_same_result(
    checkpoint: Checkpoint, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = random_family(tmp_path / "family", ("base", "sft"))
    write_whole = ranking.write_whole

    def write_two(path: Path, text: str) -> None:
        if path.name == "batch-00003.json":
            path.with_name(f".{path.name}.writing").write_text(text[:20])  # what a crash in mid-write leaves
            raise KeyboardInterrupt
        write_whole(path, text)

    monkeypatch.setattr(ranking, "write_whole", write_two)
    with pytest.raises(KeyboardInterrupt):
        ranking.run(recipe, family)
    monkeypatch.setattr(ranking, "write_whole", write_whole)
    assert not family.has("ranking")

    ranked: list[str] = []
    rank_batch = ranking.rank_batch

    def counting(prompts: Any, *rest: Any) -> Any:
        ranked.extend(prompt.prompt for prompt in prompts)
        return rank_batch(prompts, *rest)

    monkeypatch.setattr(ranking, "rank_batch", counting)
    resumed = ranking.run(recipe, family)
    assert len(ranked) == 3 * BATCH
    assert read_json_lines(resumed.path / "rankings.jsonl") == checkpoint.lines("rankings.jsonl")
    assert resumed.figures == checkpoint.figures


def test_held_out_prompts_are_not_ranked(rankings: list[dict[str, Any]], recipe: Recipe) -> None:
    forbidden = held_out_texts(load_corpus(recipe.corpus), recipe)
    assert forbidden.isdisjoint(same_text(line["prompt"]) for line in rankings)


def test_without_sft_there_is_nothing_to_rank(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkpoint"):
        ranking.run(recipe, Family(tmp_path / "family"))
