"""The curves of a stage as small SVG pictures: thin lines, hairlines, words in place of legends."""

import json
import math
from dataclasses import dataclass
from html import escape

from pipeline.inference.curves import Points, Record, points, thinned

# The picture's own units; it is shown at about this many pixels.
WIDTH, HEIGHT = 280, 132
LEFT, RIGHT, TOP, BOTTOM = 38, 274, 8, 108
MOST_POINTS = 200  # more than a line of this length can show


@dataclass(frozen=True)
class Chart:
    """One quantity: where `metrics.jsonl` has it, in training and on held-out prompts, and what to look for.

    `level` is a value to compare with, and what it stands for. Shares are shown in percent.
    """

    title: str
    unit: str
    look_for: str
    training: str = ""
    held_out: str = ""
    level: tuple[float, str] | None = None
    share: bool = False


COIN_TOSS = (math.log(2), "a coin toss")
LEARNING_RATE = Chart(
    "Learning rate",
    "size of an update",
    "It rises, then sinks: small updates at the end let the model settle.",
    "learning_rate",
)
CHARTS = {
    "base": (
        Chart("Loss", "nats a token", "It falls: the next word surprises the model less.", "loss"),
        LEARNING_RATE,
    ),
    "sft": (
        Chart(
            "Loss",
            "nats a token",
            "It falls: the trainers' answers surprise it less. On new wordings it knows less than in training.",
            "loss",
            "eval_loss",
        ),
        Chart(
            "Next token right",
            "% of tokens",
            "It rises: more often its likeliest token is the one that the trainer wrote.",
            "mean_token_accuracy",
            "eval_mean_token_accuracy",
            share=True,
        ),
        Chart(
            "Entropy",
            "nats a token",
            "It falls: the model grows surer of its next token, right or wrong.",
            "entropy",
            "eval_entropy",
        ),
        LEARNING_RATE,
    ),
    "reward": (
        Chart(
            "Accuracy",
            "% of pairs",
            "It rises: of two answers, the one that people ranked higher gets the higher number.",
            "accuracy",
            "held_out_accuracy",
            (0.5, "a coin toss"),
            share=True,
        ),
        Chart("Loss", "nats a pair", "It falls: the rankings surprise the model less.", "loss", "eval_loss", COIN_TOSS),
        Chart(
            "Margin",
            "reward",
            "It grows: the better answer of two is set further above the worse one.",
            "margin",
            "eval_margin",
        ),
    ),
    "rlhf": (
        Chart(
            "Reward",
            "mean of the answers",
            "It rises: the answers please the reward model more. This is all that the stage is trained for.",
            "reward",
            "held_out_reward",
        ),
        Chart(
            "The annotator's grade",
            "0 to 1",
            "The check. Reward rises while this does not: the reward model is being gamed.",
            held_out="held_out_grade",
        ),
        Chart(
            "Win rate against SFT",
            "% of prompts",
            "Above the line, the annotator likes these answers better than SFT's.",
            held_out="held_out_win_rate",
            level=(0.5, "as good as SFT"),
            share=True,
        ),
        Chart(
            "KL from SFT",
            "nats an answer",
            "It rises: the model moves away from SFT. A penalty holds it near.",
            "kl",
            "held_out_kl",
        ),
        Chart(
            "Harmful requests declined",
            "% of them",
            "It rises: from rankings alone, the model learns to say no.",
            held_out="held_out_declined_harmful",
            share=True,
        ),
        Chart(
            "Entropy",
            "nats a token",
            "How unsure the model is of its next token. Near zero, it would always say the same.",
            "entropy",
        ),
        Chart(
            "Length",
            "tokens an answer",
            "If it only grows, the reward model may like long answers too much.",
            "length",
            "held_out_length",
        ),
        Chart(
            "Cut at the limit",
            "% of answers",
            "Answers that did not end by themselves. They lose reward, so the share stays low.",
            "unfinished",
            "held_out_unfinished",
            share=True,
        ),
    ),
    "dpo": (
        Chart(
            "Accuracy",
            "% of pairs",
            "It rises: the better answer of two has gained more than the worse one since SFT.",
            "rewards/accuracies",
            "eval_rewards/accuracies",
            (0.5, "a coin toss"),
            share=True,
        ),
        Chart("Loss", "nats a pair", "It falls: the rankings surprise the model less.", "loss", "eval_loss", COIN_TOSS),
        Chart(
            "Better answers",
            "gain since SFT",
            "Below zero, even the better answers have become less likely. Only the gap to the worse ones counts.",
            "rewards/chosen",
            "eval_rewards/chosen",
        ),
        Chart(
            "Worse answers",
            "gain since SFT",
            "They fall faster than the better ones.",
            "rewards/rejected",
            "eval_rewards/rejected",
        ),
    ),
}
# Reads values at the pointer, or else at the time line's step, and sets the two upright lines there.
READING = f"""
const nearest = (points, step) =>
  points.reduce((best, point) => (Math.abs(point[0] - step) < Math.abs(best[0] - step) ? point : best));
const read = (pointed) => {{
  const charts = element.querySelector("[data-steps]");
  if (!charts) return;
  const first = Number(charts.dataset.first), last = Number(charts.dataset.last), marked = Number(charts.dataset.step);
  const step = pointed === undefined ? marked : first + pointed * (last - first);
  const place = (step) => `translate(${{{LEFT} + ({RIGHT - LEFT} * (step - first)) / Math.max(1, last - first)}} 0)`;
  for (const figure of charts.children) {{
    const {{digits, lines}} = JSON.parse(figure.dataset.chart);
    const found = lines.map(([name, points]) => [name, ...nearest(points, step)]);
    const parts = found.map(([name, at, value]) =>
      `${{name}} ${{value.toFixed(digits).replace("-", "\u2212")}}` + (at === found[0][1] ? "" : ` (step ${{at}})`));
    figure.querySelector(".reading").textContent = `Step ${{found[0][1].toLocaleString("en")}}: ${{parts.join(", ")}}`;
    figure.querySelector(".marker").setAttribute("transform", place(marked));
    figure.querySelector(".cursor").setAttribute("transform", place(step));
  }}
}};
element.addEventListener("pointermove", (event) => {{
  const svg = event.target.closest("svg");
  if (!svg) return read();
  const box = svg.getBoundingClientRect();
  const at = ((event.clientX - box.left) / box.width) * {WIDTH};
  read(Math.min(1, Math.max(0, (at - {LEFT}) / {RIGHT - LEFT})));
}});
element.addEventListener("pointerleave", () => read());
element.addEventListener("step", (event) => {{
  event.target.dataset.step = event.detail;
  read();
}});
watch("value", () => read());
read();
"""


def curves(stage: str, records: list[Record], steps: list[int]) -> str:
    """The small multiples of a stage. `steps` are those of its time line: the marker begins at the first."""
    logged = [record["step"] for record in records]
    first, last = min(logged), max(logged)
    figures = "".join(figure(chart, records, first, last) for chart in CHARTS[stage])
    return (
        f'<div class="curves {stage}" data-first="{first}" data-last="{last}" data-steps="{json.dumps(steps)}" '
        f'data-step="{steps[0] if steps else last}">{figures}</div>'
    )


def figure(chart: Chart, records: list[Record], first: int, last: int) -> str:
    """One chart, over the steps from `first` to `last`; nothing where the stage did not log it."""
    scale = 100 if chart.share else 1
    every = [(step, scale * value) for step, value in points(records, chart.training)]
    held_out = [(step, scale * value) for step, value in points(records, chart.held_out)]
    if not every and not held_out:
        return ""
    training, together = thinned(every, MOST_POINTS)
    level = scale * chart.level[0] if chart.level else None
    marks = ticks([value for _, value in training + held_out] + ([] if level is None else [level]))
    mean = f" Each point is the mean of {together} that were logged." if together > 1 else ""
    return (
        f'<figure data-chart="{escape(data(training, held_out, marks))}">'
        f"<figcaption><h3>{chart.title} <small>{chart.unit}</small></h3>"
        f'<p class="look-for">{chart.look_for}{mean}</p></figcaption><p class="reading"></p>'
        f"{picture(Frame(first, last, marks), training, held_out, level, description(chart, held_out or training))}"
        f'<p class="key">{key(chart, bool(training), bool(held_out))}</p></figure>'
    )


@dataclass(frozen=True)
class Frame:
    """Where steps and values lie in the picture."""

    first: int
    last: int
    marks: list[float]

    def x(self, step: int) -> float:
        return round(LEFT + (RIGHT - LEFT) * (step - self.first) / max(1, self.last - self.first), 1)

    def y(self, value: float) -> float:
        low, high = self.marks[0], self.marks[-1]
        return round(BOTTOM - (BOTTOM - TOP) * (value - low) / (high - low), 1)


def picture(frame: Frame, training: Points, held_out: Points, level: float | None, words: str) -> str:
    across = f'x1="{LEFT}" x2="{RIGHT}"'
    upright = f'y1="{TOP - 4}" y2="{BOTTOM}"'
    grid = "".join(
        f'<line class="grid" {across} y1="{frame.y(mark)}" y2="{frame.y(mark)}"/>'
        f'<text class="tick" x="{LEFT - 6}" y="{frame.y(mark) + 4}">{label}</text>'
        for mark, label in zip(frame.marks, labels(frame.marks), strict=True)
    )
    if level is not None:
        grid += f'<line class="level" {across} y1="{frame.y(level)}" y2="{frame.y(level)}"/>'
    rings = "".join(f'<circle cx="{frame.x(step)}" cy="{frame.y(value)}" r="3"/>' for step, value in held_out)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{words}">{grid}'
        f'<line class="marker" {upright}/><line class="cursor" {upright}/>'
        f"{line('training', frame, training)}{line('held-out', frame, held_out)}{rings}"
        f'<text class="tick start" x="{LEFT}" y="{BOTTOM + 18}">{frame.first:,}</text>'
        f'<text class="tick" x="{RIGHT}" y="{BOTTOM + 18}">{frame.last:,} steps</text></svg>'
    )


def line(kind: str, frame: Frame, curve: Points) -> str:
    path = " ".join(f"{frame.x(step)},{frame.y(value)}" for step, value in curve)
    return f'<polyline class="{kind}" points="{path}"/>'


def description(chart: Chart, curve: Points) -> str:
    """The curve in words, for those who do not see it."""
    (first, begin), (last, end) = curve[0], curve[-1]
    return f"{chart.title}, {chart.unit}: {begin:.3g} at step {first:,}, {end:.3g} at step {last:,}"


def key(chart: Chart, training: bool, held_out: bool) -> str:
    """What line, rings and dashes stand for."""
    entries = [("line", "in training", training), ("ring", "on held-out data", held_out)]
    if chart.level:
        entries.append(("dashes", chart.level[1], True))
    return "".join(f'<span class="{kind}">{words}</span>' for kind, words, drawn in entries if drawn)


def data(training: Points, held_out: Points, marks: list[float]) -> str:
    """What the reading needs, as JSON."""
    digits = max(0, 2 - math.floor(math.log10(marks[-1] - marks[0])))
    lines = [("", training), ("held-out", held_out)]
    rounded = [(name, [(step, round(value, digits)) for step, value in curve]) for name, curve in lines if curve]
    return json.dumps({"digits": digits, "lines": rounded}, separators=(",", ":"))


def ticks(values: list[float]) -> list[float]:
    """Two to six round numbers at equal distances, of which the first and the last enclose all values."""
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    magnitude = 10.0 ** math.floor(math.log10(span / 3))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= span / 3.5)
    start = math.floor(low / step)
    end = max(math.ceil(high / step), start + 1)
    return [count * step for count in range(start, end + 1)]


def labels(marks: list[float]) -> list[str]:
    """The numbers with as many decimals as tell them apart."""
    decimals = max(0, -math.floor(math.log10(marks[1] - marks[0]) + 1e-9))
    return [f"{mark:.{decimals}f}".replace("-", "\N{MINUS SIGN}") for mark in marks]
