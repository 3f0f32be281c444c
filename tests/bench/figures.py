"""What the benchmarks measure, and the tables that hold it."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """One figure, and its goal if it has one."""

    name: str
    value: float
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None

    @property
    def goal(self) -> str:
        """The goal in words, and whether it is met."""
        for limit, words, met in (
            (self.at_least, "at least", self.value >= (self.at_least or 0)),
            (self.at_most, "at most", self.value <= (self.at_most or 0)),
        ):
            if limit is not None:
                return f"{words} {limit:g}: {'met' if met else '**not met**'}"
        return ""

    @property
    def row(self) -> str:
        number = f"{self.value:,.0f}" if abs(self.value) >= 100 else f"{self.value:.3g}"
        return f"| {self.name} | {number}{f' {self.unit}' if self.unit else ''} | {self.goal} |"


def table(title: str, figures: Sequence[Measured]) -> str:
    """A section of Markdown with one row a figure."""
    return "\n".join([f"### {title}", "", "| | measured | goal |", "|---|---|---|", *(each.row for each in figures)])
