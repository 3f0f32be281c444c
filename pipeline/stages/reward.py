"""The reward model: the SFT model learns to put a number on an answer, from people's rankings.

Its next-word head is replaced by one that gives a prompt with an answer a single number, and the network
learns to give the answer that annotators ranked higher the larger one. It can now tell good from bad far
more cheaply than a person, but only as far as the rankings went: it cannot write, it repeats the
annotators' errors and tastes (a liking for long answers, say), and its number for an answer unlike any
that was ranked means little, which a policy trained against it will find out.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from trl import RewardConfig, RewardTrainer

from pipeline.adapters import four_bit, low_rank, merged, optimizer
from pipeline.batching import every_epoch, in_similar_batches
from pipeline.checkpoint import Checkpoint, Family
from pipeline.corpus.preferences import centred, encode_ranked, fitting, pairs
from pipeline.errors import InputError
from pipeline.recipe import Recipe, RewardSettings, RoomRewardSettings
from pipeline.training import (
    Clock,
    Progress,
    StopOnNaN,
    finish,
    keep_memory,
    metrics,
    resume,
    trained,
    trainer_arguments,
)

MOST_PAIRS = 6  # of one ranking: more rankings teach more than more pairs of the same
VALIDATION = 0.05  # share of the training rankings that chooses among the saves when there are several epochs
BINS = 10  # of the calibration

Ranking = dict[str, Any]


def run(recipe: Recipe, family: Family) -> Checkpoint:
    """Train on the pairs of each ranking with the Bradley-Terry loss of InstructGPT (arXiv:2203.02155).

    Answers are read as their model wrote them: one that was cut at the limit has no end token, and the
    reward model can tell. A centring term (arXiv:2312.09244) keeps rewards near 0; what is left of their
    mean is `offset` in the figures: subtract it, and the SFT model's answers have reward 0 on average.
    Resumes from the newest save in the work folder. Raises InputError when SFT or the rankings are
    missing, or when no pair of answers is left to train or to test on.
    """
    keep_memory()
    sft, ranked = family.checkpoint("sft"), family.checkpoint("ranking")
    tokenizer = AutoTokenizer.from_pretrained(sft.path)
    rankings = [fitting(ranking, tokenizer, recipe.context) for ranking in ranked.lines("rankings.jsonl")]
    training = [ranking for ranking in rankings if ranking["split"] == "train"]
    test = [ranking for ranking in rankings if ranking["split"] == "test"]
    if not any(pairs(ranking, recipe.seed) for ranking in test):
        raise InputError("no held-out ranking tells two answers apart; raise 'ranking.prompts' in the recipe")

    work = family.work("reward")
    clock = Clock(work)
    trainer = train(recipe, str(sft.path), tokenizer, training, work, clock)
    model = merged(trained(trainer), sft, AutoModelForSequenceClassification, num_labels=1)
    model.to(torch.bfloat16).float()  # the figures are those of the weights as they are saved
    offset = mean_of_sft(model, tokenizer, training)
    return finish(
        family,
        "reward",
        recipe,
        model,
        tokenizer,
        corpus=ranked.record["corpus"]["sha256"],
        parent=sft,
        steps=trainer.state.global_step,
        seconds=clock.seconds,
        figures=figures(judged(model, tokenizer, test, offset), recipe.seed) | {"offset": offset},
        metrics=metrics(trainer),
        samples=judged_samples(model, tokenizer, sft, offset),
    )


def train(
    recipe: Recipe, model: str, tokenizer: Any, rankings: list[Ranking], work: Path, clock: Clock
) -> RewardTrainer:
    """A trainer that has gone through the training rankings; after several epochs it holds the best save."""
    settings = recipe.reward
    choosing = rankings[: math.ceil(VALIDATION * len(rankings))] if settings.epochs > 1 else []
    shown = training_pairs(rankings[len(choosing) :], tokenizer, settings.epochs, recipe.seed)
    if not shown:
        raise InputError("no training ranking tells two answers apart; raise 'ranking.prompts' in the recipe")
    arguments = reward_arguments(work, settings, recipe.seed, settings.save_every, **optimizer(recipe))
    if choosing:
        arguments |= {
            "eval_strategy": "steps",
            "eval_steps": settings.save_every,
            "load_best_model_at_end": True,
            "metric_for_best_model": "accuracy",
        }
    trainer = RewardTrainer(
        model=model,
        args=RewardConfig(**arguments),
        train_dataset=Dataset.from_list(in_similar_batches(shown, length, settings.batch_size, recipe.seed)),
        eval_dataset=Dataset.from_list(training_pairs(choosing, tokenizer, 1, recipe.seed)) if choosing else None,
        processing_class=tokenizer,
        peft_config=low_rank(settings.lora, "SEQ_CLS"),
        quantization_config=four_bit(recipe),
        callbacks=[clock, Progress("reward"), StopOnNaN()],
    )
    resume(trainer, work)
    return trainer


def reward_arguments(
    work: Path, settings: RewardSettings | RoomRewardSettings, seed: int, save_every: int, **more: Any
) -> dict[str, Any]:
    """Keyword arguments of `RewardConfig` for pairs that stand in the order of training, those of all epochs."""
    return trainer_arguments(
        work,
        seed=seed,
        save_every=save_every,
        learning_rate=settings.learning_rate,
        batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        num_train_epochs=1,
        train_sampling_strategy="sequential",
        lr_scheduler_type="linear",
        warmup_steps=0.05,
        center_rewards_coefficient=0.01,
        max_length=None,
        **more,
    )


def training_pairs(rankings: list[Ranking], tokenizer: Any, epochs: int, seed: int) -> list[dict[str, list[int]]]:
    """Every epoch's pairs as token ids, each epoch in an order of its own; at most MOST_PAIRS of a ranking."""
    encoded = [
        {
            "chosen_ids": encode_ranked(tokenizer, ranking, better),
            "rejected_ids": encode_ranked(tokenizer, ranking, worse),
        }
        for ranking in rankings
        for better, worse in pairs(ranking, seed)[:MOST_PAIRS]
    ]
    return every_epoch(encoded, epochs, seed)


def length(pair: dict[str, list[int]]) -> int:
    return max(map(len, pair.values()))


def scores(model: Any, sequences: list[list[int]], batch_size: int = 64) -> list[float]:
    """The reward model's number for each sequence of token ids, in their order."""
    order = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
    result: dict[int, float] = {}
    model.eval()
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        rows = [torch.tensor(sequences[index]) for index in batch]
        tokens = pad_sequence(rows, batch_first=True, padding_value=model.config.pad_token_id).to(model.device)
        with torch.inference_mode():
            logits = model(input_ids=tokens, attention_mask=tokens != model.config.pad_token_id).logits
        result |= zip(batch, logits[:, 0].tolist(), strict=True)
    return [result[index] for index in range(len(sequences))]


def judged(model: Any, tokenizer: Any, rankings: list[Ranking], offset: float = 0.0) -> list[Ranking]:
    """The rankings with the `reward` (less the offset) and the `length` in tokens of every answer."""
    sequences = [encode_ranked(tokenizer, ranking, answer) for ranking in rankings for answer in ranking["answers"]]
    notes = iter(
        [
            {"reward": reward - offset, "length": len(sequence)}
            for reward, sequence in zip(scores(model, sequences), sequences, strict=True)
        ]
    )
    return [ranking | {"answers": [answer | next(notes) for answer in ranking["answers"]]} for ranking in rankings]


def judged_samples(model: Any, tokenizer: Any, sft: Checkpoint, offset: float) -> list[dict[str, Any]]:
    """The SFT model's last answers to the fixed prompts, with their rewards."""
    records = sft.lines("samples.jsonl")
    last = [record for record in records if record["step"] == records[-1]["step"]]
    rewards = scores(model, [encode_ranked(tokenizer, record, record) for record in last])
    return [record | {"reward": reward - offset} for record, reward in zip(last, rewards, strict=True)]


def mean_of_sft(model: Any, tokenizer: Any, rankings: list[Ranking]) -> float:
    """Mean reward of the answers that the SFT model sampled; of all answers where it sampled none."""
    answers = [(ranking, answer) for ranking in rankings for answer in ranking["answers"]]
    sampled = [(ranking, answer) for ranking, answer in answers if answer["source"] == "sft"]
    return statistics.fmean(scores(model, [encode_ranked(tokenizer, *each) for each in sampled or answers]))


@dataclass(frozen=True)
class Comparison:
    """Two answers to one prompt, of which annotators ranked the first higher."""

    kind: str
    sources: str
    difference: float  # reward of the better answer less that of the worse
    better_is_shorter: bool


def figures(rankings: list[Ranking], seed: int) -> dict[str, Any]:
    """What the judged held-out rankings say of the reward model.

    `accuracy` is the share of all pairs in which the better answer has the higher reward; `scale` holds
    the 2nd and the 98th percentile of the rewards, rounded outwards to halves.
    """
    comparisons = [
        Comparison(
            ranking["kind"],
            " over ".join((better["source"], worse["source"])),
            better["reward"] - worse["reward"],
            better["length"] < worse["length"],
        )
        for ranking in rankings
        for better, worse in pairs(ranking, seed)
    ]
    answers = [answer for ranking in rankings for answer in ranking["answers"]]
    rewards = [answer["reward"] for answer in answers]
    lengths = [float(answer["length"]) for answer in answers]
    ranks = [answer["rank"] for answer in answers]
    shorter = [comparison for comparison in comparisons if comparison.better_is_shorter]
    bins = calibration([comparison.difference for comparison in comparisons])
    low, high = percentile(rewards, 2), percentile(rewards, 98)
    return {
        "accuracy": accuracy(comparisons),
        "pairs": len(comparisons),
        "accuracy_where_better_is_shorter": accuracy(shorter) if shorter else None,
        "accuracy_by_kind": by(lambda comparison: comparison.kind, comparisons),
        "accuracy_by_sources": by(lambda comparison: comparison.sources, comparisons),
        "calibration_error": sum(bin["share"] * abs(bin["predicted"] - bin["actual"]) for bin in bins),
        "calibration": bins,
        "length_correlation": correlation(rewards, lengths),
        "length_correlation_within_rank": correlation(centred(rewards, ranks), centred(lengths, ranks)),
        "scale": [math.floor(2 * low) / 2, math.ceil(2 * high) / 2],
    }


def accuracy(comparisons: list[Comparison]) -> float:
    return statistics.fmean(comparison.difference > 0 for comparison in comparisons)


def by(key: Callable[[Comparison], str], comparisons: list[Comparison]) -> dict[str, dict[str, float]]:
    """Accuracy and number of pairs of each group."""
    groups: dict[str, list[Comparison]] = defaultdict(list)
    for comparison in comparisons:
        groups[key(comparison)].append(comparison)
    return {name: {"accuracy": accuracy(group), "pairs": len(group)} for name, group in sorted(groups.items())}


def calibration(differences: list[float]) -> list[dict[str, float]]:
    """Bins of the predicted probability that the first of two answers is the better one.

    Every pair counts in both orders. A bin holds the mean prediction, the share of its pairs in which the
    first was the better one, and its share of all pairs; empty bins are left out.
    """
    bins: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for difference in differences:
        for sign in (1, -1):
            predicted = 0.5 * (1 + math.tanh(sign * difference / 2))  # the sigmoid, without overflow
            bins[min(int(BINS * predicted), BINS - 1)].append((predicted, sign == 1))
    return [
        {
            "predicted": statistics.fmean(predicted for predicted, _ in entries),
            "actual": statistics.fmean(better for _, better in entries),
            "share": len(entries) / (2 * len(differences)),
        }
        for _, entries in sorted(bins.items())
    ]


def correlation(first: list[float], second: list[float]) -> float | None:
    """Pearson's correlation; None where one of the two does not vary."""
    if len(set(first)) < 2 or len(set(second)) < 2:
        return None
    return statistics.correlation(first, second)


def percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
