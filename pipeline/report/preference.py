"""How well the reward model agrees with rankings that it has not learned from, and with the cards' own grades."""

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.checkpoint import Family
from pipeline.corpus.preferences import centred, pairs
from pipeline.corpus.splits import fraction
from pipeline.inference.models import RewardModel
from pipeline.recipe import Recipe
from pipeline.report.figures import Figure, correlation, pooled_share
from pipeline.report.prompts import Probe

RANKINGS = "held-out rankings"
CARDS = "card pairs"
PAIRS = 12  # of each source and kind that are written out
BINS = 5  # of the calibration, from an even chance to certainty
ORDER = ("good", "weak", "bad")


@dataclass(frozen=True)
class Scored:
    """An answer with the reward model's number for it and its length in tokens. `grade` is what it should be."""

    prompt: str
    text: str
    group: str
    kind: str
    split: str
    grade: str
    fails: str
    reward: float
    tokens: int


@dataclass(frozen=True)
class Comparison:
    """Two answers to one prompt, of which the first should have the higher reward."""

    better: Scored
    worse: Scored

    @property
    def lead(self) -> float:
        return self.better.reward - self.worse.reward


def comparisons_by_source(
    model: RewardModel, family: Family, recipe: Recipe, probes: Sequence[Probe]
) -> dict[str, list[Comparison]]:
    """Both kinds of pairs, RANKINGS and CARDS.

    The rankings are those kept from the reward model's training; annotators ranked the SFT model's answers to
    them, together with the cards'. Of the held-out prompts with a card, every pair of a good, a weak and a bad
    answer counts. Where only the wording is held out, rankings of other wordings may have held those answers.
    """
    return {RANKINGS: held_out_rankings(model, family, recipe), CARDS: card_comparisons(model, probes)}


def pair_lines(comparisons: dict[str, list[Comparison]]) -> list[dict[str, Any]]:
    """PAIRS pairs of every source and kind, to be read: which ones is fixed by a hash.

    {"source", "kind", "prompt", "better": {"text", "reward", "tokens"}, "worse": the same}
    """
    groups: dict[tuple[str, str], list[Comparison]] = defaultdict(list)
    for source, found in comparisons.items():
        for pair in sorted(found, key=lambda pair: fraction("pair", pair.better.text, pair.worse.text)):
            groups[source, pair.better.kind].append(pair)
    return [
        {"source": source, "kind": kind, "prompt": pair.better.prompt}
        | {
            name: {"text": answer.text, "reward": round(answer.reward, 4), "tokens": answer.tokens}
            for name, answer in (("better", pair.better), ("worse", pair.worse))
        }
        for (source, kind), found in sorted(groups.items())
        for pair in found[:PAIRS]
    ]


def held_out_rankings(model: RewardModel, family: Family, recipe: Recipe) -> list[Comparison]:
    if not family.has("ranking"):
        return []
    lines = family.checkpoint("ranking").lines("rankings.jsonl")
    # Of a longer conversation the score of its last turn alone would say little.
    rankings = [line for line in lines if line["split"] == "test" and "earlier" not in line]
    asked = [(ranking, answer) for ranking in rankings for answer in ranking["answers"]]
    exchanges = [(ranking["prompt"], answer["text"]) for ranking, answer in asked]
    finished = [answer["stopped"] for _, answer in asked]
    scored = {
        (ranking["id"], answer["text"]): Scored(
            ranking["prompt"],
            answer["text"],
            ranking["id"],
            ranking["kind"],
            "ranking",
            str(answer["rank"]),
            "",
            reward,
            tokens,
        )
        for (ranking, answer), reward, tokens in zip(asked, *rated(model, exchanges, finished), strict=True)
    }
    return [
        Comparison(scored[ranking["id"], better["text"]], scored[ranking["id"], worse["text"]])
        for ranking in rankings
        for better, worse in pairs(ranking, recipe.seed)
    ]


def card_comparisons(model: RewardModel, probes: Sequence[Probe]) -> list[Comparison]:
    """Every pair of a good, a weak and a bad answer of each probe's question."""
    graded = [
        (probe.prompt, grade, fails, text)
        for probe in probes
        if probe.prompt.question is not None
        for grade, fails, text in (
            *(("good", "", text) for text in probe.prompt.question.good),
            *(("weak", "helpful", text) for text in probe.prompt.question.weak),
            *(("bad", bad.fails, bad.text) for bad in probe.prompt.question.bad),
        )
    ]
    exchanges = [(prompt.prompt, text) for prompt, _, _, text in graded]
    groups: dict[str, list[Scored]] = defaultdict(list)
    for (prompt, grade, fails, text), reward, tokens in zip(
        graded, *rated(model, exchanges, [True] * len(exchanges)), strict=True
    ):
        groups[prompt.id].append(
            Scored(prompt.prompt, text, prompt.id, prompt.kind, prompt.split, grade, fails, reward, tokens)
        )
    return [
        Comparison(better, worse)
        for group in groups.values()
        for better in group
        for worse in group
        if ORDER.index(better.grade) < ORDER.index(worse.grade)
    ]


def rated(
    model: RewardModel, exchanges: Sequence[tuple[str, str]], finished: Sequence[bool]
) -> tuple[list[float], list[int]]:
    """Reward and length in tokens of every (prompt, answer)."""
    lengths = [len(model.encode(prompt, text)) for prompt, text in exchanges]
    return model.scores(exchanges, finished), lengths


def comparison_figures(name: str, comparisons: Sequence[Comparison]) -> list[Figure]:
    """Accuracy in all, where the better answer is the shorter one, by kind, criterion and grades; length's share."""
    if not comparisons:
        return []
    shorter = [found for found in comparisons if found.better.tokens < found.worse.tokens]
    figures = [
        accuracy(f"{name} ordered right", comparisons),
        accuracy(f"{name} ordered right where the better is shorter", shorter),
        length_figure(name, comparisons),
        *by(name, "kind", lambda found: found.better.kind, comparisons),
    ]
    if comparisons[0].better.grade in ORDER:
        figures += by(name, "grade", lambda found: f"{found.better.grade} over {found.worse.grade}", comparisons)
        figures += by(name, "criterion", lambda found: found.worse.fails, comparisons)
        figures += by(name, "split", lambda found: found.better.split, comparisons)
    return [figure for figure in figures if figure.count]


def accuracy(name: str, comparisons: Sequence[Comparison], section: str = "accuracy") -> Figure:
    groups: dict[str, list[bool]] = defaultdict(list)
    for comparison in comparisons:
        groups[comparison.better.group].append(comparison.lead > 0)
    return pooled_share(name, list(groups.values()), section)


def by(name: str, what: str, key: Callable[[Comparison], str], comparisons: Sequence[Comparison]) -> list[Figure]:
    groups: dict[str, list[Comparison]] = defaultdict(list)
    for comparison in comparisons:
        groups[key(comparison)].append(comparison)
    return [accuracy(f"{name}, {what} {group}", groups[group], f"{name} by {what}") for group in sorted(groups)]


def length_figure(name: str, comparisons: Sequence[Comparison]) -> Figure:
    """Correlation of reward and length among answers of one kind that deserve the same grade (or rank)."""
    answers = list({id(one): one for found in comparisons for one in (found.better, found.worse)}.values())
    groups: list[Hashable] = [(answer.kind, answer.grade) for answer in answers]
    rewards = centred([answer.reward for answer in answers], groups)
    lengths = centred([float(answer.tokens) for answer in answers], groups)
    label = f"{name}: correlation with length within a grade"
    return correlation(label, rewards, lengths, "length", groups=len(set(groups)))


def calibration(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Bins of how sure the reward model is of its order, and how often annotators order the two so.

    Sureness is the Bradley-Terry probability of the answer that it prefers, 0.5 to 1. A bin holds the mean
    prediction, the share that came true (`value` with its interval), and the number of pairs.
    """
    bins: dict[int, list[tuple[float, Comparison]]] = defaultdict(list)
    for comparison in comparisons:
        sure = 1 / (1 + math.exp(-min(abs(comparison.lead), 50)))
        bins[min(int(2 * BINS * (sure - 0.5)), BINS - 1)].append((sure, comparison))
    found = []
    for _, members in sorted(bins.items()):
        came_true = accuracy("", [comparison for _, comparison in members])
        found.append(
            {
                "predicted": statistics.fmean(sure for sure, _ in members),
                "value": came_true.value,
                "low": came_true.low,
                "high": came_true.high,
                "count": came_true.count,
            }
        )
    return found


def calibration_error(bins: Sequence[dict[str, Any]]) -> float:
    """Mean distance of prediction and outcome over the bins, by their number of pairs (Naeini et al. 2015)."""
    total = sum(found["count"] for found in bins)
    return sum(found["count"] * abs(found["predicted"] - found["value"]) for found in bins) / total
