"""Figures: a value, how many answers it rests on, and its 95 % interval."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

Z = 1.96  # standard errors on each side that hold 95 % of a normal distribution


@dataclass(frozen=True)
class Figure:
    """One measured value of `count` answers, pairs or documents, with its 95 % interval.

    `unit` is "share" for what lies between 0 and 1, and otherwise says what the value counts.
    """

    name: str
    value: float
    low: float
    high: float
    count: int
    unit: str = "share"
    section: str = ""

    def __str__(self) -> str:
        if self.unit == "share":
            return f"{100 * self.value:.1f} % ({100 * self.low:.0f} to {100 * self.high:.0f}; {self.count:,})"
        if self.unit == "tokens":
            return f"{self.value:g} ({self.low:g} to {self.high:g}; {self.count:,})"
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f}; {self.count:,})"


def share(name: str, hits: Iterable[bool], section: str = "") -> Figure:
    """A proportion with Wilson's score interval (Wilson 1927), which holds for small counts and near 0 and 1."""
    return pooled_share(name, [[hit] for hit in hits], section)


def pooled_share(name: str, groups: Sequence[Sequence[bool]], section: str = "") -> Figure:
    """The share of hits among all members of groups that are not independent: pairs of one ranking, say.

    `count` is that of the members. Wilson's interval is taken at the effective count, which is smaller by the
    design effect (Kish 1965): groups that are alike inside tell as little as if they had one member each.
    """
    groups = [group for group in groups if group]
    count = sum(map(len, groups))
    if not count:
        return Figure(name, 0.0, 0.0, 1.0, 0, section=section)
    value = sum(map(sum, groups)) / count
    spread = sum((sum(group) - value * len(group)) ** 2 for group in groups)
    alone = value * (1 - value) * count
    effective = count / max(1.0, spread / alone) if alone else len(groups)
    low, high = wilson(value, effective)
    return Figure(name, value, low, high, count, section=section)


def wilson(value: float, count: float) -> tuple[float, float]:
    centre = (value + Z * Z / (2 * count)) / (1 + Z * Z / count)
    half = Z / (1 + Z * Z / count) * math.sqrt(value * (1 - value) / count + Z * Z / (4 * count * count))
    # Rounding must not push the ends past the value where all hit or none does.
    return min(value, max(0.0, centre - half)), max(value, min(1.0, centre + half))


def mean(name: str, values: Sequence[float], unit: str = "", section: str = "") -> Figure:
    """A mean with its normal 95 % interval; of one value the interval is that value."""
    value = statistics.fmean(values)
    half = Z * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return Figure(name, value, value - half, value + half, len(values), unit, section)


def mean_share(name: str, groups: Sequence[Sequence[float]], section: str = "") -> Figure:
    """The mean over groups of their mean, each member between 0 and 1; the interval is that of the groups.

    `count` is that of all members.
    """
    figure = mean(name, [statistics.fmean(group) for group in groups], "share", section)
    count = sum(map(len, groups))
    return replace(figure, low=max(0.0, figure.low), high=min(1.0, figure.high), count=count)


def ratio(name: str, parts: Sequence[tuple[float, float]], unit: str = "share", section: str = "") -> Figure:
    """A sum over a sum, such as nats over tokens, of one (numerator, denominator) for each text.

    The interval is that of the ratio estimator (Cochran 1977, chapter 6): texts vary, not tokens.
    """
    above, below = (sum(column) for column in zip(*parts, strict=True))
    value, count = above / below, len(parts)
    spread = sum((numerator - value * denominator) ** 2 for numerator, denominator in parts)
    half = Z * math.sqrt(spread * count / (count - 1)) / below if count > 1 else 0.0
    low = max(0.0, value - half)
    return Figure(name, value, low, min(1.0, value + half) if unit == "share" else value + half, count, unit, section)


def median(name: str, values: Sequence[float], unit: str, section: str = "") -> Figure:
    """A median between the two order statistics that hold it with 95 % (Conover 1999, section 3.2)."""
    ordered, count = sorted(values), len(values)
    half = Z * math.sqrt(count) / 2
    low, high = max(0, math.floor(count / 2 - half)), min(count - 1, math.ceil(count / 2 + half) - 1)
    value = statistics.median(ordered)
    return Figure(name, value, min(value, ordered[low]), max(value, ordered[high]), count, unit, section)


def distinct(name: str, texts: Sequence[Sequence[str]], section: str = "") -> Figure:
    """The share of different members among all members (Li et al. 2016, arXiv:1510.03055), over many texts.

    It falls as texts are added: compare it between equal counts only. The interval is the jackknife's,
    which leaves out one text at a time.
    """
    total = sum(map(len, texts))
    holders: dict[str, set[int]] = {}
    for number, text in enumerate(texts):
        for member in text:
            holders.setdefault(member, set()).add(number)
    alone = [0] * len(texts)
    for found in holders.values():
        if len(found) == 1:
            alone[next(iter(found))] += 1
    value, count = len(holders) / total, len(texts)
    without = [
        (len(holders) - only) / (total - len(text))
        for only, text in zip(alone, texts, strict=True)
        if total > len(text)
    ]
    middle = statistics.fmean(without or [value])
    half = Z * math.sqrt((count - 1) / count * sum((one - middle) ** 2 for one in without))
    return Figure(name, value, max(0.0, value - half), min(1.0, value + half), count, section=section)


def correlation(
    name: str, first: Sequence[float], second: Sequence[float], section: str = "", groups: int = 1
) -> Figure:
    """Pearson's correlation with Fisher's interval (Fisher 1921); 0 where one of the two does not vary.

    `groups` says from how many groups the means were taken away before: that many degrees of freedom fewer.
    """
    count = len(first)
    if len(set(first)) < 2 or len(set(second)) < 2:
        return Figure(name, 0.0, -1.0, 1.0, count, "correlation", section)
    value = statistics.correlation(first, second)
    middle = math.atanh(max(-0.999999, min(0.999999, value)))
    half = Z / math.sqrt(max(1, count - groups - 2))
    low, high = min(value, math.tanh(middle - half)), max(value, math.tanh(middle + half))
    return Figure(name, value, low, high, count, "correlation", section)


def kappa(name: str, pairs: Sequence[tuple[bool, bool]], section: str = "") -> Figure:
    """Cohen's kappa of two judges (Cohen 1960): agreement beyond what their rates alone would give.

    1 is full agreement, 0 is chance. The interval uses Cohen's simple standard error.
    """
    count = len(pairs)
    agreed = sum(one == other for one, other in pairs) / count
    first, second = (sum(judge) / count for judge in zip(*pairs, strict=True))
    chance = first * second + (1 - first) * (1 - second)
    if chance == 1:
        return Figure(name, 1.0, -1.0, 1.0, count, "kappa", section)
    value = (agreed - chance) / (1 - chance)
    half = Z * math.sqrt(agreed * (1 - agreed) / count) / (1 - chance)
    return Figure(name, value, max(-1.0, value - half), min(1.0, value + half), count, "kappa", section)
