"""Retraining the reward model on a room's votes.

A low-rank adapter learns them, so that the family's own reward model stays as it is. A share of the rankings that
it was trained on is shown again, or it would forget them for a handful of votes; what it gained and what it forgot
are both measured.
"""

import hashlib
import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PrinterCallback, TrainerCallback
from trl import RewardConfig, RewardTrainer

from pipeline.adapters import low_rank
from pipeline.batching import every_epoch, in_similar_batches
from pipeline.checkpoint import Checkpoint, Family, write_json_lines, write_record, writing
from pipeline.corpus.preferences import encode_ranked, fitting, pairs
from pipeline.errors import InputError
from pipeline.recipe import Recipe, load_recipe
from pipeline.rooms.labels import Label
from pipeline.run import RECIPE
from pipeline.stages.reward import judged, length, mean_of_sft, reward_arguments, scores, training_pairs
from pipeline.training import StopOnNaN, keep_memory, metrics, save_adapter, trained

# Rankings of the original held-out set that are read before and after: all of them would take longer than training.
ORIGINAL_TEST = 60

Report = Callable[[dict[str, Any]], None]
Ranking = dict[str, Any]


def retrain(family: Family, labels: Sequence[Label], room: Family, report: Report) -> Checkpoint:
    """Train an adapter on the votes and write it, whole or not at all, as the room's `reward` checkpoint.

    `report` is told {"step", "steps", "loss", "accuracy"} along the way. The figures hold the accuracy before and
    after on the room's held-out votes and on the original held-out rankings, and the rewards of fixed answers.
    Raises InputError when a stage is missing, or when no vote tells two answers apart.
    """
    keep_memory()
    began = time.monotonic()
    recipe = load_recipe(str(family.path / RECIPE))
    parent = family.checkpoint("reward")
    tokenizer = AutoTokenizer.from_pretrained(parent.path)

    def readable(rankings: Sequence[Ranking]) -> list[Ranking]:
        return [fitting(each, tokenizer, recipe.context) for each in rankings]

    votes = [label.record() for label in labels]
    originals = family.checkpoint("ranking").lines("rankings.jsonl")
    rehearsed = on_side("train", originals)
    room_test = readable(on_side("test", votes))
    original_test = readable(on_side("test", originals)[:ORIGINAL_TEST])
    original_train = readable(rehearsed[:ORIGINAL_TEST])
    shown, repeated = mixed(on_side("train", votes), rehearsed, readable, tokenizer, recipe)
    fixed = fixed_answers(family)

    model: Any = AutoModelForSequenceClassification.from_pretrained(parent.path, dtype="float32")

    def measured() -> dict[str, Any]:
        return {
            "room": accuracy(model, tokenizer, room_test, recipe.seed),
            "original": accuracy(model, tokenizer, original_test, recipe.seed),
            "offset": mean_of_sft(model, tokenizer, original_train),
            "rewards": scores(model, [encode_ranked(tokenizer, each, each) for each in fixed]),
        }

    before = measured()
    with tempfile.TemporaryDirectory() as work:
        trainer = train(model, tokenizer, shown, recipe, Path(work), report)
    model = trained(trainer)
    model.to(torch.bfloat16).float()  # the figures are those of the weights as they are saved
    after = measured()
    figures = {
        "votes": len(labels),
        "pairs": len(shown),
        "original_pairs": repeated,
        "room_test_pairs": count_pairs(room_test, recipe.seed),
        "original_test_pairs": count_pairs(original_test, recipe.seed),
        "before": {name: before[name] for name in ("room", "original")},
        "after": {name: after[name] for name in ("room", "original")},
        "offset": after["offset"],
        "scale": parent.figures["scale"],
        "fixed": [
            each | {"before": one - before["offset"], "after": other - after["offset"]}
            for each, one, other in zip(fixed, before["rewards"], after["rewards"], strict=True)
        ],
    }
    with writing(room.path / "reward") as folder:
        save_adapter(model, folder, "reward")
        tokenizer.save_pretrained(folder)
        write_json_lines(folder / "metrics.jsonl", metrics(trainer))
        write_record(
            folder,
            "reward",
            recipe,
            corpus=digest(labels),
            parent=parent,
            steps=trainer.state.global_step,
            seconds=time.monotonic() - began,
            figures=figures,
        )
    return room.checkpoint("reward")


def on_side(split: str, rankings: Sequence[Ranking]) -> list[Ranking]:
    return [each for each in rankings if each["split"] == split]


def mixed(
    votes: list[Ranking],
    originals: list[Ranking],
    readable: Callable[[Sequence[Ranking]], list[Ranking]],
    tokenizer: Any,
    recipe: Recipe,
) -> tuple[list[dict[str, list[int]]], int]:
    """The pairs of the votes among pairs of the original rankings, once each; and how many are original."""
    chosen = training_pairs(readable(votes), tokenizer, 1, recipe.seed)
    if not chosen:
        raise InputError("no vote that is trained on tells two answers apart; vote on a few more prompts")
    share = recipe.rooms.reward.original_share
    wanted = round(len(chosen) * share / (1 - share))
    choose = random.Random(recipe.seed).sample
    some = training_pairs(readable(choose(originals, min(len(originals), wanted))), tokenizer, 1, recipe.seed)
    repeated = choose(some, min(len(some), wanted))
    return chosen + repeated, len(repeated)


def train(
    model: Any, tokenizer: Any, shown: list[dict[str, list[int]]], recipe: Recipe, work: Path, report: Report
) -> RewardTrainer:
    settings = recipe.rooms.reward
    every = every_epoch(shown, settings.epochs, recipe.seed)
    arguments = reward_arguments(work, settings, recipe.seed, 1, save_strategy="no", logging_steps=1)
    trainer = RewardTrainer(
        model=model,
        args=RewardConfig(**arguments),
        train_dataset=Dataset.from_list(in_similar_batches(every, length, settings.batch_size, recipe.seed)),
        processing_class=tokenizer,
        peft_config=low_rank(settings.lora, "SEQ_CLS"),
        callbacks=[StopOnNaN(), Reporting(report)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trainer


class Reporting(TrainerCallback):
    """Tells how far training has come."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            told = {name: float(logs[name]) for name in ("loss", "accuracy") if name in logs}
            self.report({"step": state.global_step, "steps": state.max_steps} | told)


def fixed_answers(family: Family) -> list[Ranking]:
    """The last answers of SFT, and of RLHF if there is one, to the fixed prompts.

    {"stage", "prompt", "text", "stopped"}
    """
    found = []
    for stage in ("sft", "rlhf"):
        if family.has(stage):
            records = family.checkpoint(stage).lines("samples.jsonl")
            found += [
                {"stage": stage} | {name: record[name] for name in ("prompt", "text", "stopped")}
                for record in records
                if record["step"] == records[-1]["step"]
            ]
    return found


def accuracy(model: Any, tokenizer: Any, rankings: list[Ranking], seed: int) -> float | None:
    """Share of pairs whose better answer has the higher reward; None without a pair."""
    read = judged(model, tokenizer, rankings)
    right = [better["reward"] > worse["reward"] for ranking in read for better, worse in pairs(ranking, seed)]
    return sum(right) / len(right) if right else None


def count_pairs(rankings: list[Ranking], seed: int) -> int:
    return sum(len(pairs(ranking, seed)) for ranking in rankings)


def digest(labels: Sequence[Label]) -> str:
    """SHA-256 of what was learned from."""
    text = json.dumps([label.record() for label in labels], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
