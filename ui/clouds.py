"""The Reward tab's pictures as HTML: the rewards of every stage as clouds of dots, the ranked answers, the score."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from pipeline.inference.best_of import Drawing, Sample
from pipeline.inference.what_if import Exchange
from ui.columns import ENDINGS, LOOKS, icon, place, signed, span

Scale = tuple[float, float]

# Dots as near as this, in percent of the scale, are stacked; the picture is this many dots high.
DOT_WIDTH = 1.6
LEVELS = (0, -1, 1, -2, 2, -3, 3)
PLOT_HEIGHT = 64
NONE = '<span class="none">\N{EN DASH}</span>'


@dataclass(frozen=True)
class Tried:
    """One what-if: its name, and the reward before and after."""

    name: str
    before: float
    after: float


@dataclass(frozen=True)
class Version:
    """An answer as it was scored."""

    exchange: Exchange
    reward: float


def clouds(stages: Sequence[str], drawings: dict[str, Drawing], chosen: str, scale: Scale) -> str:
    """One strip of dots a stage on one scale, the mean marked; the best of the chosen stage runs through all."""
    best = best_of(drawings, chosen)
    line = "" if best is None else f'<i class="best-line" style="left:{place(best.reward, scale):.2f}%"></i>'
    rows = "".join(cloud(stage, drawings.get(stage), best if stage == chosen else None, scale) for stage in stages)
    low, high = scale
    ends = (
        f"<span>{signed(low, 'g')}</span><span style='left:{place(0, scale):.2f}%'>0</span>"
        f"<span>{signed(high, 'g')}</span>"
    )
    return (
        f'<div class="clouds {chosen}">{rows}<div class="cloud axis"><span></span>'
        f'<p class="ends" aria-hidden="true">{ends}</p></div><div class="through">{line}</div></div>'
        f'<p class="finding">{finding(drawings, chosen)}</p><p class="legend">A dot is one answer, the upright line '
        f"the mean of a stage, the ring with the dashed line the best of {LOOKS[chosen].name}.</p>"
    )


def cloud(stage: str, drawing: Drawing | None, best: Sample | None, scale: Scale) -> str:
    look = LOOKS[stage]
    zero = f'<i class="zero" style="left:{place(0, scale):.2f}%"></i>'
    if drawing is None or not drawing.samples:
        return (
            f'<div class="cloud {stage}"><p class="who">{icon(look.icon)}<b>{look.name}</b></p>'
            f'<div class="plot">{zero}</div></div>'
        )
    rewards = [sample.reward for sample in drawing.samples for _ in range(sample.times)]
    words = (
        f"{look.name}: {drawing.count} rewards from {signed(rewards[-1])} to {signed(rewards[0])}, "
        f"mean {signed(drawing.mean)}"
    )
    dots = "".join(
        f'<circle cx="{across:.2f}%" cy="{PLOT_HEIGHT / 2 + 8 * level:g}" r="4"/>'
        for across, level in swarm([place(reward, scale) for reward in rewards])
    )
    outside = sum(reward > scale[1] or reward < scale[0] for reward in rewards)
    beyond = f'<small class="beyond">{outside} beyond the scale</small>' if outside else ""
    ring = ""
    if best is not None:
        ring = f'<circle class="ring" cx="{place(best.reward, scale):.2f}%" cy="{PLOT_HEIGHT / 2:g}" r="7.5"/>'
    return (
        f'<div class="cloud {stage}"><p class="who">{icon(look.icon)}<b>{look.name}</b>'
        f"<small>mean {signed(drawing.mean)}</small></p>"
        f'<div class="plot" role="img" aria-label="{words}">{zero}'
        f'<svg width="100%" height="{PLOT_HEIGHT}" aria-hidden="true">{dots}{ring}</svg>'
        f'<i class="mean" style="left:{place(drawing.mean, scale):.2f}%"></i>{beyond}</div></div>'
    )


def swarm(places: Sequence[float]) -> list[tuple[float, int]]:
    """Where each dot stands: its place in percent, and the level nearest to the middle that is free there."""
    right: dict[int, float] = {}
    dots = []
    for across in sorted(places):
        free = [level for level in LEVELS if across - right.get(level, -DOT_WIDTH) >= DOT_WIDTH]
        level = free[0] if free else min(LEVELS, key=lambda level: right[level])
        right[level] = across
        dots.append((across, level))
    return dots


def best_of(drawings: dict[str, Drawing], chosen: str) -> Sample | None:
    drawing = drawings.get(chosen)
    return drawing.samples[0] if drawing and drawing.samples else None


def finding(drawings: dict[str, Drawing], chosen: str) -> str:
    """What the clouds show, in a sentence: choosing among the chosen stage's answers against RLHF's mean."""
    best = best_of(drawings, chosen)
    if best is None:
        return "The further right, the more the reward model likes an answer."
    drawing = drawings[chosen]
    name = LOOKS[chosen].name
    text = f"<b>Best of {drawing.count} from {name}: {signed(best.reward)}.</b> "
    rlhf = drawings.get("rlhf")
    if rlhf is None or not rlhf.samples:
        return text + f"{name} reaches {signed(drawing.mean)} on average."
    more = "above" if best.reward > rlhf.mean else "not above"
    return text + f"That is {more} what RLHF reaches on average, {signed(rlhf.mean)}."


def progress(drawing: Drawing, finished: int, stages: int, limit: int) -> str:
    """How far the drawing of all stages is, in words and as a thin line."""
    share = (finished + min(1.0, drawing.tokens / limit)) / stages
    name = LOOKS[drawing.stage].name
    return (
        f"<p>{name} is writing {drawing.count} answers: {drawing.tokens} tokens each so far, "
        f"{drawing.ended} {'has' if drawing.ended == 1 else 'have'} ended.</p>{thin_line(share)}"
    )


def thin_line(share: float) -> str:
    return f'<div class="so-far" aria-hidden="true"><i style="width:{100 * share:.0f}%"></i></div>'


def ranked(drawing: Drawing, scale: Scale) -> str:
    """The answers, best first, each a button that carries it into the score box."""
    last = len(drawing.samples) - 1
    names = {last: "Worst", 0: "Best"}
    rows = "".join(
        row(number, names.get(number, ""), sample, drawing.stage, scale)
        for number, sample in enumerate(drawing.samples)
    )
    return (
        f'<p class="caption">{drawing.count} answers of {LOOKS[drawing.stage].name}, best first. '
        f'Press one to take it into the score box.</p><ol class="ranked {drawing.stage}">{rows}</ol>'
    )


def row(number: int, name: str, sample: Sample, stage: str, scale: Scale) -> str:
    words, paths = ENDINGS["stopped" if sample.answer.stopped else "cut"]
    times = f'<span class="times">{sample.times} times</span>' if sample.times > 1 else ""
    text = escape(sample.answer.text) if sample.answer.text.strip() else "<i>It wrote nothing.</i>"
    tokens = f"{sample.answer.tokens} token{'s' * (sample.answer.tokens != 1)}"
    return (
        f'<li data-times="{sample.times}"><button type="button" data-row="{number}">'
        f'<span class="rank"><span class="number">{signed(sample.reward)}</span>'
        f'{bar(sample.reward, scale)}<span class="name">{name}</span></span>'
        f'<span class="what"><span class="text">{text}</span><span class="facts">{times}<span>{tokens}</span>'
        f'<span class="how">{icon(paths)}{words}</span></span></span></button></li>'
    )


def bar(reward: float | None, scale: Scale) -> str:
    """A thin bar from zero on the family's scale."""
    filled = "" if reward is None else f'<i class="bar" style="{span(reward, scale)}"></i>'
    zero = f'<i class="zero" style="left:{place(0.0, scale):.2f}%"></i>'
    return f'<span class="track" aria-hidden="true">{filled}{zero}</span>'


def score(latest: Version | None, before: Version | None, pinned: Version | None, scale: Scale) -> str:
    """The reward in large, its bar, and what changed since the version before and the pinned one."""
    number = NONE if latest is None else f'<span class="number">{signed(latest.reward)}</span>'
    changes = "&nbsp;"
    if latest and pinned:
        parts = [f"{change(latest, before)} since the last edit"] if before else []
        parts += [f"{change(latest, pinned)} against the pinned answer"] if pinned != latest else []
        changes = "<br>".join(parts) or "This answer is pinned: edits are compared with it."
    low, high = scale
    return (
        f'<div class="score" role="status"><p class="words">Reward</p><p class="value">{number}</p>'
        f'<p class="changes">{changes}</p></div>{bar(latest.reward if latest else None, scale)}'
        f'<p class="ends" aria-hidden="true"><span>{signed(low, "g")}</span>'
        f'<span style="left:{place(0, scale):.2f}%">0</span><span>{signed(high, "g")}</span></p>'
    )


def change(latest: Version, earlier: Version) -> str:
    return f"<b>{signed(latest.reward - earlier.reward)}</b>"


def tried_list(tried: Sequence[Tried]) -> str:
    """The what-ifs so far, the newest on top."""
    if not tried:
        return '<p class="none-yet">Each edit you try will be listed here with the reward before and after it.</p>'
    rows = "".join(
        f"<tr><th scope='row'>{one.name}</th><td>{signed(one.before)}</td><td>{signed(one.after)}</td>"
        f"<td><b>{signed(one.after - one.before)}</b></td></tr>"
        for one in reversed(tried)
    )
    return (
        "<table><thead><tr><th scope='col'>What if</th><th scope='col'>before</th><th scope='col'>after</th>"
        f"<th scope='col'>change</th></tr></thead><tbody>{rows}</tbody></table>"
    )
