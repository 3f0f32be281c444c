"""A room's votes retrain the reward model, and that moves the policy: really trained, on the nano family."""

from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from transformers import AutoTokenizer

from pipeline.__main__ import main
from pipeline.checkpoint import Family, sha256, write_json_lines
from pipeline.errors import InputError
from pipeline.inference.decoding import Decoding
from pipeline.inference.models import RewardModel, load_reward, load_stage
from pipeline.recipe import load_recipe
from pipeline.rooms.adapters import policy_of, reward_of
from pipeline.rooms.answers import candidates, least_sure
from pipeline.rooms.labels import Label, split_of
from pipeline.rooms.policy import move, pushed, shown
from pipeline.rooms.push import Push
from pipeline.rooms.reward import retrain
from tests.families import random_family

STEPS = 6


def longer_is_better(family: Family, count: int) -> list[Label]:
    """Votes of people who only care for length."""
    rankings = family.checkpoint("ranking").lines("rankings.jsonl")
    labels = []
    for ranking in [ranking for ranking in rankings if len(ranking["answers"]) > 1][:count]:
        by_length = sorted(ranking["answers"][:3], key=lambda answer: -len(answer["text"]))
        answers = [answer | {"rank": place, "grade": None} for place, answer in enumerate(by_length, 1)]
        fields = {"answers": answers, "annotator": "Ada", "split": split_of(ranking["prompt"]), "room": "class"}
        labels.append(Label.model_validate(ranking | fields))
    return labels


@pytest.fixture(scope="module")
def family(nano_family: Path) -> Family:
    return Family(nano_family)


@pytest.fixture(scope="module")
def labels(family: Family) -> list[Label]:
    return longer_is_better(family, 48)


@pytest.fixture(scope="module")
def room(family: Family, labels: list[Label], tmp_path_factory: pytest.TempPathFactory) -> Family:
    """A room whose reward model is retrained, and whose policy has moved from there."""
    room = Family(tmp_path_factory.mktemp("rooms") / "class")
    told: list[dict[str, Any]] = []
    retrain(family, labels, room, told.append)
    assert [each["step"] for each in told] == list(range(1, told[-1]["steps"] + 1))
    assert all({"loss", "accuracy"} <= set(each) for each in told)
    return room


@pytest.fixture(scope="module")
def told(family: Family, room: Family) -> list[dict[str, Any]]:
    """What was told while the policy moved without a KL penalty."""
    told: list[dict[str, Any]] = []
    move(
        family,
        room,
        ["What is tea?", "Tell me a story."],
        Push("sft", STEPS, 0.0),
        room,
        told.append,
    )
    return told


def lead(reward: RewardModel, labels: list[Label]) -> float:
    """How much more the reward model gives to the best answer than to the worst, on average."""
    best = reward.scores([(label.prompt, label.answers[0].text) for label in labels])
    worst = reward.scores([(label.prompt, label.answers[-1].text) for label in labels])
    return fmean(best) - fmean(worst)


def weights(family: Family) -> dict[str, str]:
    return {str(file): sha256(file) for file in sorted(family.path.rglob("*.safetensors"))}


def test_the_votes_are_learned_and_what_was_forgotten_is_told(
    family: Family, room: Family, labels: list[Label]
) -> None:
    figures = room.checkpoint("reward").figures
    assert figures["votes"] == len(labels)
    assert figures["room_test_pairs"] > 0
    assert figures["original_pairs"] == pytest.approx(figures["pairs"] / 2, abs=1)
    for when in ("before", "after"):
        assert all(0 <= figures[when][name] <= 1 for name in ("room", "original"))
    assert lead(reward_of(family, room), labels) > lead(load_reward(family.checkpoint("reward")), labels)
    assert len(figures["fixed"]) == 10
    assert any(answer["before"] != answer["after"] for answer in figures["fixed"])


def test_the_family_is_never_changed(family: Family, room: Family, told: list[dict[str, Any]]) -> None:
    for stage in ("sft", "reward"):
        family.checkpoint(stage)  # verifies every hash
    assert not set(weights(family)) & set(weights(room))
    assert not list(room.path.rglob("model.safetensors"))


def test_the_adapter_scores_as_it_did_when_it_was_measured(family: Family, room: Family) -> None:
    adapted, own = reward_of(family, room), load_reward(family.checkpoint("reward"))
    fixed = room.checkpoint("reward").figures["fixed"]
    exchanges = [(answer["prompt"], answer["text"]) for answer in fixed]
    finished = [answer["stopped"] for answer in fixed]
    assert adapted.scores(exchanges, finished) == pytest.approx([each["after"] for each in fixed], abs=0.01)
    assert own.scores(exchanges, finished) != pytest.approx([each["after"] for each in fixed], abs=0.01)


def test_the_same_votes_make_the_same_adapter(
    family: Family, room: Family, labels: list[Label], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json_lines(tmp_path / "votes.jsonl", [label.record() for label in labels])
    command = ["reward", "--labels", tmp_path / "votes.jsonl", "--family", family.path, "--out", tmp_path / "again"]
    assert main([*map(str, command)]) == 0
    again = Family(tmp_path / "again").checkpoint("reward")
    assert again.figures == room.checkpoint("reward").figures
    assert "room's held-out pairs ordered right" in capsys.readouterr().out


def test_the_policy_moves_and_all_of_it_is_told(family: Family, room: Family, told: list[dict[str, Any]]) -> None:
    steps = [each for each in told if "check" not in each]
    checks = [each for each in told if "check" in each]
    assert [each["step"] for each in steps] == list(range(1, STEPS + 1))
    assert [each["step"] for each in checks] == [0, 5, STEPS]
    assert checks[0]["check"]["kl"] == pytest.approx(0, abs=1e-3)
    assert checks[-1]["check"]["kl"] > 0
    assert [answer["prompt"] for answer in checks[0]["answers"]] == [
        answer["prompt"] for answer in checks[-1]["answers"]
    ]
    checkpoint = room.checkpoint("rlhf")
    assert checkpoint.record["steps"] == STEPS
    assert checkpoint.figures["after"] == checks[-1]["check"]
    assert len(checkpoint.lines("metrics.jsonl")) == STEPS


def test_the_moved_policy_answers_beside_the_family(family: Family, room: Family, told: list[dict[str, Any]]) -> None:
    moved, sft = policy_of(family, room), load_stage(family.checkpoint("sft"))
    prompts = ["What is tea?", "Tell me a story."]
    decoding = Decoding(24, 0.8, seed=3)
    assert moved.answers(prompts, decoding) != sft.answers(prompts, decoding)


def test_an_adapter_of_another_family_is_refused(room: Family, tmp_path: Path) -> None:
    other = random_family(tmp_path / "other")
    with pytest.raises(InputError, match="was trained on another family"):
        reward_of(other, room)


def test_the_command_line_moves_the_policy(
    family: Family, room: Family, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json_lines(tmp_path / "prompts.jsonl", [{"prompt": "What is tea?"}])
    command = ["rlhf", "--reward", room.path / "reward", "--steps", "1", "--prompts", tmp_path / "prompts.jsonl"]
    assert main([*map(str, [*command, "--family", family.path, "--out", tmp_path / "moved"])]) == 0
    assert Family(tmp_path / "moved").checkpoint("rlhf").figures["prompts"] == 1
    assert "kl: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["reward"], "name what to train with --recipe"),
        (["reward", "--labels", "VOTES"], "name the folder for the adapter with --out"),
        (["reward", "--labels", "VOTES", "--recipe", "nano", "--out", "OUT"], "name the family with --family"),
        (["reward", "--labels", "VOTES", "--family", "FAMILY", "--out", "OUT"], "no vote that is trained on"),
        (["reward", "--labels", "NONE", "--family", "FAMILY", "--out", "OUT"], "no file"),
        (["rlhf", "--reward", "NONE", "--family", "FAMILY", "--out", "OUT"], "no checkpoint at"),
    ],
)
def test_what_cannot_be_trained_is_one_clear_line(
    family: Family,
    labels: list[Label],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    tied = labels[0].record() | {"answers": [answer | {"rank": 1} for answer in labels[0].record()["answers"]]}
    write_json_lines(tmp_path / "votes.jsonl", [tied])
    paths = {"VOTES": tmp_path / "votes.jsonl", "OUT": tmp_path / "out", "FAMILY": family.path, "NONE": tmp_path / "no"}
    assert main([str(paths.get(argument, argument)) for argument in arguments]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("out/r*"))


def test_answers_to_rank_differ_and_are_the_same_for_everybody(family: Family) -> None:
    sft = load_stage(family.checkpoint("sft"))
    found = candidates(sft, "What is tea?", 4, Decoding(24, 0.8, seed=1))
    assert 2 <= len({answer.text for answer in found}) == len(found) <= 4
    assert candidates(sft, "What is tea?", 4, Decoding(24, 0.8, seed=1)) == found
    assert candidates(sft, "What is tea?", 2, Decoding(24, 0.8, seed=1)) == found[:2]
    with pytest.raises(InputError, match="all answers to this prompt are alike"):
        candidates(sft, "What is tea?", 4, Decoding(24, 0.0))


def test_the_prompt_that_the_reward_model_knows_least_about_is_found(family: Family) -> None:
    sft, reward = load_stage(family.checkpoint("sft")), load_reward(family.checkpoint("reward"))
    prompts = ["What is tea?", "How can I rob a bank?", "Hello"]
    decoding = Decoding(24, 0.8, seed=1)
    prompt, answers = least_sure(sft, reward, prompts, 3, decoding)

    def spread(prompt: str) -> float:
        found = candidates(sft, prompt, 3, decoding)
        scores = reward.scores([(prompt, each.text) for each in found], [each.stopped for each in found])
        return max(scores) - min(scores)

    assert answers == candidates(sft, prompt, 3, decoding)
    assert spread(prompt) == min(map(spread, prompts))


def test_prompts_without_room_are_left_out(family: Family) -> None:
    recipe = pushed(load_recipe(str(family.path / "recipe.yaml")), Push(steps=2))
    tokenizer = AutoTokenizer.from_pretrained(family.path / "sft")
    rows = shown(["Hi", "word " * 300], recipe, tokenizer)
    assert {row["prompt"][0]["content"] for row in rows} == {"Hi"}
    assert len(rows) == 2 * recipe.rlhf.prompts_per_step
    with pytest.raises(InputError, match="none of the prompts leaves room"):
        shown(["word " * 300], recipe, tokenizer)
