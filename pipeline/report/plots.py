"""The report card's plots, as SVG: grey is base, blue is SFT, amber is RLHF."""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.report.figures import Figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

COLOURS = {"base": "#8a8f98", "sft": "#2f6fdb", "rlhf": "#dd8f00", "dpo": "#7a4fb5"}
LABELS = {"base": "base", "sft": "SFT", "rlhf": "RLHF", "dpo": "DPO"}
SHOWN = (
    "stops by itself",
    "answers rather than continues",
    "held-out wordings correct",
    "held-out cards correct",
    "capitals never seen in SFT",
    "myths denied",
    "true surprising facts affirmed",
    "unknowable admitted",
    "harmful declined",
    "look-alikes wrongly declined",
    "distress met with support",
    "repeated 4-grams",
)
INK, QUIET, HAIRLINE = "#1c1f24", "#5b616b", "#d9dce1"


def plots(
    stages: Mapping[str, Mapping[str, Figure]], curve: Sequence[Mapping[str, float]], bins: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """File names with their SVG: the behaviour of every stage, RLHF over its steps, the reward model's calibration.

    What was not measured has no plot.
    """
    drawn = {"report-behaviour.svg": behaviour(stages)}
    if curve:
        drawn["report-curve.svg"] = over_steps(curve)
    if bins:
        drawn["report-calibration.svg"] = calibration(bins)
    return drawn


def behaviour(stages: Mapping[str, Mapping[str, Figure]]) -> str:
    """A row for each figure, a bar for each stage, with the 95 % interval as a line."""
    names = [name for name in SHOWN if any(name in figures for figures in stages.values())]
    canvas, [axes] = panels(1, width=7.5, height=1.0 + 0.13 * len(names) * (len(stages) + 1))
    height = 1 / (len(stages) + 1)
    for number, (stage, figures) in enumerate(stages.items()):
        rows = [(row + number * height, figures[name]) for row, name in enumerate(names) if name in figures]
        where = [row for row, _ in rows]
        axes.barh(where, [100 * found.value for _, found in rows], height, color=COLOURS[stage], label=LABELS[stage])
        lows, highs = [100 * found.low for _, found in rows], [100 * found.high for _, found in rows]
        axes.hlines(where, lows, highs, color=INK, linewidth=0.8)
    middle = (len(stages) - 1) * height / 2
    axes.set_yticks([row + middle for row in range(len(names))], names)
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of answers, with 95 % interval")
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=len(stages), frameon=False)
    return svg(canvas)


def over_steps(curve: Sequence[Mapping[str, float]]) -> str:
    """Does the proxy go on rising while the annotator's grade falls?"""
    canvas, axes = panels(3, width=7.5, height=5.6)
    steps = [point["step"] for point in curve]
    titles = (
        ("reward", "proxy: the reward model's score"),
        ("grade", "the annotator's grade, 0 to 1"),
        ("kl", "KL from SFT, nats an answer"),
    )
    for panel, (name, title) in zip(axes, titles, strict=True):
        panel.plot(steps, [point[name] for point in curve], color=COLOURS["rlhf"], marker="o", markersize=3)
        # At step 0 the policy is SFT.
        panel.plot(steps[:1], [curve[0][name]], color=COLOURS["sft"], marker="o", markersize=5)
        panel.annotate(
            "SFT", (steps[0], curve[0][name]), (6, 4), textcoords="offset points", color=COLOURS["sft"], fontsize=8
        )
        panel.set_title(title, loc="left", fontsize=9, color=QUIET)
    axes[-1].set_xlabel("RLHF steps, on held-out prompts")
    return svg(canvas)


def calibration(bins: Sequence[Mapping[str, Any]]) -> str:
    canvas, [axes] = panels(1, width=4.6, height=4.2)
    axes.plot([50, 100], [50, 100], color=HAIRLINE, linewidth=1)
    sure = [100 * found["predicted"] for found in bins]
    axes.vlines(sure, [100 * found["low"] for found in bins], [100 * found["high"] for found in bins], color=QUIET)
    axes.plot(sure, [100 * found["value"] for found in bins], color=INK, marker="o", markersize=4)
    for where, found in zip(sure, bins, strict=True):
        axes.annotate(
            f"{found['count']:,}", (where, 100 * found["value"]), (5, -9), textcoords="offset points", fontsize=8
        )
    axes.set_xlabel("how sure the reward model is, %")
    axes.set_ylabel("annotators agree, % of pairs (number of pairs)")
    return svg(canvas)


def panels(count: int, width: float, height: float) -> tuple["Canvas", Sequence[Any]]:
    """A white sheet with `count` panels below each other, in inches."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(width, height), layout="constrained")
    axes = list(canvas.subplots(count, 1, sharex=True, squeeze=False)[:, 0])
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.spines[["left", "bottom"]].set_color(HAIRLINE)
        for axis in (panel.xaxis, panel.yaxis):
            axis.label.set(color=QUIET, fontsize=9)
        panel.tick_params(color=HAIRLINE, labelcolor=QUIET, labelsize=8)
        panel.grid(axis="x", color=HAIRLINE, linewidth=0.5)
        panel.set_axisbelow(True)
    return canvas, axes


def svg(canvas: "Canvas") -> str:
    """The same picture gives the same text: no date, ids from a fixed salt, and letters as letters."""
    from matplotlib import rc_context

    written = io.StringIO()
    with rc_context({"svg.hashsalt": "stagewise", "svg.fonttype": "none", "font.family": "sans-serif"}):
        canvas.savefig(written, format="svg", metadata={"Date": None})
    return written.getvalue()
