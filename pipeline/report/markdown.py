"""The report card as a page of Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.report.figures import Figure

Stages = Mapping[str, Sequence[Figure]]
LABELS = {"base": "base", "sft": "SFT", "rlhf": "RLHF", "dpo": "DPO", "reward": "reward model"}
PICTURES = {
    "report-behaviour.svg": "What each stage's answers do",
    "report-curve.svg": "RLHF over its steps",
    "report-calibration.svg": "Calibration of the reward model",
}


def stage_table(stages: Stages) -> list[str]:
    """One row a figure, one column a stage, a heading row for each section."""
    cells = {stage: {figure.name: figure for figure in figures} for stage, figures in stages.items()}
    sections = {figure.name: figure.section for figures in stages.values() for figure in figures}
    lines = ["| | " + " | ".join(LABELS[stage] for stage in stages) + " |", "|---|" + "---|" * len(stages)]
    for section in dict.fromkeys(sections.values()):
        lines.append(f"| **{section}** |" + " |" * len(stages))
        for name in [name for name, inside in sections.items() if inside == section]:
            row = [cell(cells[stage].get(name)) for stage in stages]
            lines.append(f"| {with_unit(name, cells)} | " + " | ".join(row) + " |")
    return lines


def with_unit(name: str, cells: Mapping[str, Mapping[str, Figure]]) -> str:
    unit = next(figures[name].unit for figures in cells.values() if name in figures)
    return f"{name}, {unit}" if unit not in ("", "share", "correlation", "kappa") else name


def cell(figure: Figure | None) -> str:
    return "" if figure is None else str(figure)


def figure_list(figures: Iterable[Figure]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {figure.name} | {figure} |" for figure in figures)]


def bars_table(bars: Sequence[Mapping[str, Any]], measured: Mapping[str, Mapping[str, Figure]]) -> list[str]:
    """Each bar with the figure that it is about, and whether the figure meets it."""
    words = {True: "met", False: "**not met**", None: "not measured"}
    return [
        "| stage | figure | measured | bar | |",
        "|---|---|---|---|---|",
        *(
            f"| {LABELS[bar['stage']]} | {bar['figure']} "
            f"| {cell(measured.get(bar['stage'], {}).get(bar['figure']))} | {bar['bar']} | {words[bar['met']]} |"
            for bar in bars
        ),
    ]


def text_table(figures: Sequence[Figure]) -> list[str]:
    """Perplexity and bits a byte of each source side by side."""
    by_source: dict[str, dict[str, Figure]] = {}
    for figure in figures:
        by_source.setdefault(figure.name, {})[figure.unit] = figure
    return [
        "| text | perplexity a token | bits a byte |",
        "|---|---|---|",
        *(
            f"| {source} | {cell(found.get('perplexity a token'))} | {cell(found.get('bits a byte'))} |"
            for source, found in by_source.items()
        ),
    ]


def curve_table(curve: Sequence[Mapping[str, float]]) -> list[str]:
    return [
        "| step | proxy reward | annotator's grade | KL, nats an answer | win rate |",
        "|---|---|---|---|---|",
        *(
            f"| {point['step']} | {point['reward']:.2f} | {point['grade']:.3f} | {point['kl']:.2f} "
            f"| {100 * point['win_rate']:.0f} % |"
            for point in curve
        ),
    ]


def calibration_table(bins: Sequence[Mapping[str, Any]], error: float) -> list[str]:
    return [
        f"Calibration on the held-out rankings, mean error {100 * error:.1f} %:",
        "",
        "| the model is sure to | annotators agree in | pairs |",
        "|---|---|---|",
        *(
            f"| {100 * found['predicted']:.0f} % | {100 * found['value']:.0f} % "
            f"({100 * found['low']:.0f} to {100 * found['high']:.0f}) | {found['count']:,} |"
            for found in bins
        ),
    ]


def pictures(names: Iterable[str]) -> list[str]:
    return [f"![{PICTURES[name]}]({name})" for name in names]


def page(parts: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Sections of (heading, lines), without those that have no lines."""
    return "\n".join(
        line for heading, lines in parts if lines for line in ([heading, "", *lines, ""] if heading else [*lines, ""])
    )
