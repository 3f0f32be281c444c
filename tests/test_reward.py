"""The reward stage learns from rankings, says how well, and goes on where it was stopped."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pipeline.chat_format import encode_exchange
from pipeline.checkpoint import write_json_lines
from pipeline.corpus.preferences import encode_ranked, fitting, pairs
from pipeline.errors import InputError
from pipeline.recipe import Recipe, load_recipe
from pipeline.stages import reward
from tests.rankings import BETTER, WORSE, Interrupted, StopAt, answer, ranked_family, ranking, rehash, small


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return small(load_recipe("nano"), "reward", batch_size=8, save_every=6, learning_rate=0.002)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> Any:
    return reward.run(recipe, ranked_family(tmp_path_factory.mktemp("reward") / "family"))


def test_it_learns_what_annotators_prefer(trained: Any) -> None:
    figures = trained.figures
    assert figures["accuracy"] > 0.8
    assert figures["pairs"] == 10 * 5
    groups = figures["accuracy_by_kind"].values()
    assert sum(group["accuracy"] * group["pairs"] for group in groups) == pytest.approx(50 * figures["accuracy"])
    assert set(figures["accuracy_by_sources"]) == {"good over sft", "good over bad", "sft over sft", "sft over bad"}


def test_a_plain_load_gives_the_rewards_of_the_figures(trained: Any) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(trained.path, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(trained.path)
    assert model.config.num_labels == 1
    training = [ranking(number) for number in range(40) if number % 4]
    sampled = [
        reward_of(model, encode_ranked(tokenizer, entry, given)) - trained.figures["offset"]
        for entry in training
        for given in entry["answers"]
        if given["source"] == "sft"
    ]
    assert sum(sampled) / len(sampled) == pytest.approx(0, abs=1e-3)
    low, high = trained.figures["scale"]
    best = reward_of(model, encode_exchange(tokenizer, "Question 0?", "Oranges and kiwis are rich in vitamin C."))
    assert low < 0 < best - trained.figures["offset"] <= high + 0.5


def reward_of(model: Any, tokens: list[int]) -> float:
    with torch.no_grad():
        return model(input_ids=torch.tensor([tokens])).logits.item()


def test_scores_do_not_depend_on_batch_neighbours(trained: Any) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(trained.path, dtype=torch.float32)
    sequences = [[1, 20, 30, 3], [1, 40, 3], [1, 50, 60, 70, 80, 3]]
    together = reward.scores(model, sequences)
    assert together == pytest.approx([reward_of(model, sequence) for sequence in sequences], abs=1e-5)


def test_samples_are_the_last_sft_answers_with_their_rewards(trained: Any) -> None:
    better, worse = trained.lines("samples.jsonl")
    assert (better["text"], worse["text"]) == (BETTER[0], WORSE[0])
    assert better["reward"] > worse["reward"]


def test_an_interrupted_run_reaches_the_same_figures(
    trained: Any, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = ranked_family(tmp_path / "family")
    monkeypatch.setattr(reward, "StopOnNaN", lambda: StopAt(9))
    with pytest.raises(Interrupted):
        reward.run(recipe, family)
    assert not family.has("reward")
    rest = StopAt()
    monkeypatch.setattr(reward, "StopOnNaN", lambda: rest)
    resumed = reward.run(recipe, family)
    assert rest.first == 7
    assert resumed.record["steps"] == trained.record["steps"]
    for name in ("accuracy", "offset", "calibration_error", "length_correlation"):
        assert resumed.figures[name] == pytest.approx(trained.figures[name], abs=1e-3)
    assert not (family.path / ".work" / "reward").exists()


def test_several_epochs_keep_the_best_save(recipe: Recipe, tmp_path: Path) -> None:
    checkpoint = reward.run(small(recipe, "reward", epochs=2), ranked_family(tmp_path / "family"))
    measured = [record["eval_accuracy"] for record in checkpoint.lines("metrics.jsonl") if "eval_accuracy" in record]
    assert len(measured) >= 2
    # Two of the thirty training rankings choose; the pairs of the others are shown twice.
    assert checkpoint.record["steps"] == math.ceil(2 * 28 * 5 / 8)


def test_rankings_without_a_preference_are_an_error(recipe: Recipe, tmp_path: Path) -> None:
    family = ranked_family(tmp_path / "family")
    tied = ranking(1) | {"answers": [answer("One.", 1, "sft"), answer("Two.", 1, "sft")]}
    rankings = [ranking(0), tied]
    path = family.path / "ranking" / "rankings.jsonl"
    write_json_lines(path, rankings)
    rehash(path)
    with pytest.raises(InputError, match="no training ranking"):
        reward.run(recipe, family)
    write_json_lines(path, [ranking(1), tied | {"split": "test"}])
    rehash(path)
    with pytest.raises(InputError, match="no held-out ranking"):
        reward.run(recipe, family)


def test_pairs_are_all_answers_of_different_rank(tiny_tokenizer: Any) -> None:
    entry = ranking(1)
    found = pairs(entry, seed=1)
    assert sorted((better["rank"], worse["rank"]) for better, worse in found) == [
        (1, 2),
        (1, 3),
        (1, 3),
        (2, 3),
        (2, 3),
    ]
    assert pairs(entry, seed=1) == found
    same = entry | {"answers": [answer("Yes.", 1, "sft"), answer("Yes.", 2, "sft")]}
    assert pairs(same, seed=1) == []


def test_a_cut_answer_has_no_end_token(tiny_tokenizer: Any) -> None:
    finished = encode_ranked(tiny_tokenizer, {"prompt": "Why?"}, answer("Because.", 1, "sft"))
    assert finished == encode_exchange(tiny_tokenizer, "Why?", "Because.")
    assert (
        encode_ranked(tiny_tokenizer, {"prompt": "Why?"}, answer("Because.", 1, "sft", stopped=False)) == finished[:-1]
    )


def test_answers_beyond_the_context_are_left_out(tiny_tokenizer: Any) -> None:
    entry = ranking(1) | {"answers": [answer("Yes.", 1, "sft"), answer("no " * 100, 2, "sft")]}
    assert [given["text"] for given in fitting(entry, tiny_tokenizer, 64)["answers"]] == ["Yes."]


def test_a_model_that_knows_its_odds_is_calibrated() -> None:
    # Three of four pairs decided rightly, at a predicted probability of three quarters.
    difference = math.log(3)
    bins = reward.calibration([difference] * 3 + [-difference])
    assert [round(entry["predicted"], 6) for entry in bins] == [0.25, 0.75]
    assert [entry["actual"] for entry in bins] == [0.25, 0.75]
    assert [entry["share"] for entry in bins] == [0.5, 0.5]
    overconfident = reward.calibration([5.0] * 3 + [-5.0])
    assert [entry["actual"] for entry in overconfident] == [0.25, 0.75]
    assert overconfident[1]["predicted"] > 0.99


def test_length_correlation_within_rank_ignores_what_rank_explains() -> None:
    # Rewards follow rank alone; lengths do too, but within a rank they say nothing.
    rewards, lengths, ranks = [3.0, 3.1, 1.0, 1.1], [30.0, 30.0, 10.0, 10.0], [1, 1, 2, 2]
    assert reward.correlation(rewards, lengths) == pytest.approx(1, abs=0.01)
    assert reward.correlation(reward.centred(rewards, ranks), reward.centred(lengths, ranks)) is None
