"""How far people agree with each other, and with the reward model."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isnan

import krippendorff
import numpy as np

from pipeline.rooms.labels import Label

Pair = tuple[str, str, str]  # a prompt and two answers to it, in the order of their texts


@dataclass(frozen=True)
class Disagreement:
    """Two answers that people put in different orders: how many prefer each, and how many neither."""

    prompt: str
    one: str
    other: str
    for_one: int
    for_other: int
    ties: int

    @property
    def contested(self) -> float:
        """0 where all agree, 0.5 where the two sides are even."""
        sides = self.for_one + self.for_other
        return min(self.for_one, self.for_other) / sides if sides else 0.0


def comparisons(label: Label) -> Iterator[tuple[Pair, int]]:
    """Every two answers of a vote with 1 if the first is better, -1 if the other is, 0 for a tie."""
    for one, other in combinations(sorted(label.answers, key=lambda answer: answer.text), 2):
        yield (label.prompt, one.text, other.text), (other.rank > one.rank) - (other.rank < one.rank)


def alpha(labels: Sequence[Label]) -> float | None:
    """Krippendorff's alpha of the annotators over pairs of answers: 1 is perfect agreement, 0 that of chance.

    The order of two answers is an ordinal value (worse, as good, better), and counts in both directions: which
    of the two is named first must not matter. None while no two people have ranked the same answers, or where all
    are ties, so that there is nothing to agree about.
    """
    by_annotator: dict[str, dict[Pair, int]] = defaultdict(dict)
    for label in labels:
        for (prompt, one, other), value in comparisons(label):
            by_annotator[label.annotator] |= {(prompt, one, other): value, (prompt, other, one): -value}
    counts = Counter(pair for values in by_annotator.values() for pair in values)
    units = sorted(pair for pair, count in counts.items() if count > 1)
    found = [[values.get(pair, np.nan) for pair in units] for values in by_annotator.values()]
    seen = {value for row in found for value in row if not isnan(value)}
    if len(seen) < 2:
        return None
    agreement = float(krippendorff.alpha(reliability_data=np.array(found), level_of_measurement="ordinal"))
    return None if isnan(agreement) else agreement


def disagreements(labels: Sequence[Label]) -> list[Disagreement]:
    """The pairs of answers on which people differ, the most contested first."""
    votes: dict[Pair, Counter[int]] = defaultdict(Counter)
    for label in labels:
        for pair, value in comparisons(label):
            votes[pair][value] += 1
    found = [Disagreement(*pair, counts[1], counts[-1], counts[0]) for pair, counts in votes.items()]
    contested = [each for each in found if each.for_one and each.for_other]
    return sorted(contested, key=lambda each: (-each.contested, -each.for_one - each.for_other, each.prompt))


def agreement_with(rewards: Mapping[tuple[str, str], float], labels: Sequence[Label]) -> tuple[int, int]:
    """How many pairs of differently ranked answers the rewards, by (prompt, answer), order as people did, and of
    how many."""
    ordered = [
        (rewards[prompt, one] - rewards[prompt, other]) * value > 0
        for label in labels
        for (prompt, one, other), value in comparisons(label)
        if value
    ]
    return sum(ordered), len(ordered)
