"""A column as HTML. Everything that a model or a person wrote is escaped: it is shown as text."""

from dataclasses import dataclass
from html import escape

from ui.answering import State, View


@dataclass(frozen=True)
class Look:
    """How a stage presents itself: always by name and icon, not by colour alone."""

    name: str
    after: str
    learned: str
    icon: str


LOOKS = {
    "base": Look(
        "Base",
        "after pre-training",
        "Has read a lot of text. It carries on from your words; nobody taught it to answer.",
        '<path d="M3 6h18M3 12h12"/><path d="M3 18h5" /><path d="M12 18h.01M16 18h.01M20 18h.01"/>',
    ),
    "sft": Look(
        "SFT",
        "after demonstrations",
        "Has seen people answer. It answers like them, and copies their mistakes too.",
        '<path d="M4 5h16v11H10l-5 4v-4H4z"/><path d="M8 9h8M8 12h5"/>',
    ),
    "rlhf": Look(
        "RLHF",
        "after rankings and rewards",
        "Was rewarded for answers like those ranked best: helpful, honest, harmless.",
        '<path d="M4 5h16v11H10l-5 4v-4H4z"/><path d="M8.5 10.5l2.5 2.5 4.5-5"/>',
    ),
}

ENDINGS: dict[State, tuple[str, str]] = {
    "untrained": ("Not trained yet", ""),
    "idle": ("", ""),
    "waiting": ("Waiting", '<circle cx="12" cy="12" r="7"/>'),
    "writing": ("Writing", '<path d="M5 19l1-4L16 5l3 3L9 18z"/>'),
    "scoring": ("Being scored", '<path d="M5 19l1-4L16 5l3 3L9 18z"/>'),
    "stopped": ("Stopped by itself", '<path d="M5 12.5l4.5 4.5L19 7.5"/>'),
    "cut": ("Cut at the limit", '<path d="M3 12h11M10 8l4 4-4 4M19 5v14"/>'),
    "halted": ("Stopped by you", '<rect x="6" y="6" width="12" height="12" rx="1"/>'),
    "failed": ("Failed", '<path d="M12 4l9 16H3zM12 10v4M12 17h.01"/>'),
}
BUSY = ("waiting", "writing", "scoring")
# Hidden text keeps the room of a full answer: some four characters a token, and short lines.
CHARACTERS_PER_TOKEN = 5
# Enough of a long prompt to see that the base model carries on from it.
GIVEN_CHARACTERS = 160


def column(view: View, scale: tuple[float, float]) -> str:
    """One stage's column, whatever state it is in."""
    look = LOOKS[view.stage]
    return (
        f'<section class="stage {view.stage}" data-state="{view.state}" aria-busy="{str(view.state in BUSY).lower()}">'
        f"<header><h2>{icon(look.icon)}{look.name} <small>{look.after}</small></h2><p>{look.learned}</p></header>"
        f'<div class="answer">{body(view)}</div>'
        f'<div class="figures">{ending(view)}{reward(view, scale)}</div>'
        "</section>"
    )


def body(view: View) -> str:
    if view.state == "untrained":
        return '<p class="aside">This stage is not trained yet. The column fills once its checkpoint is there.</p>'
    room = f'<p class="room" aria-hidden="true">{"answer " * (view.limit * CHARACTERS_PER_TOKEN // 7)}</p>'
    if view.state == "idle":
        return room + '<p class="aside">Its answer will stand here.</p>'
    given = f'<span class="given">{escape(shortened(view.prompt))}</span>' if view.stage == "base" else ""
    if view.state in ("stopped", "cut") and not view.text.strip():
        given += '<span class="aside">It wrote nothing.</span>'
    caret = '<span class="caret"></span>' if view.state in ("waiting", "writing") else ""
    error = f'<p class="error" role="alert">This column failed: {escape(view.error)}</p>' if view.error else ""
    return f'{room}<div><p class="text">{given}<span class="written">{escape(view.text)}</span>{caret}</p>{error}</div>'


def shortened(prompt: str) -> str:
    return prompt if len(prompt) <= GIVEN_CHARACTERS else "\N{HORIZONTAL ELLIPSIS}" + prompt[-GIVEN_CHARACTERS:]


def ending(view: View) -> str:
    """How the answer ended, its tokens and its speed."""
    words, paths = ENDINGS[view.state]
    speed = f"{view.tokens / view.seconds:.0f}<span class='unit'> tokens</span>/s" if view.seconds else ""
    tokens = f"{view.tokens} token{'s' * (view.tokens != 1)}" if view.tokens else ""
    return (
        f'<p class="ending"><span class="how">{icon(paths) if paths else ""}{words}</span>'
        f'<span class="count">{tokens}</span><span class="speed">{speed}</span></p>'
    )


def reward(view: View, scale: tuple[float, float]) -> str:
    """The reward as a bar from zero on the family's fixed scale, with the number beside it."""
    low, high = scale
    zero = place(0.0, scale)
    number = '<span class="none">\N{EN DASH}</span>'
    bar = meter = ""
    if view.reward is not None:
        number = f'<span class="number">{signed(view.reward)}</span>'
        end = place(view.reward, scale)
        meter = f'role="meter" aria-label="Reward" aria-valuemin="{low:g}" aria-valuemax="{high:g}" '
        meter += f'aria-valuenow="{view.reward:.2f}"'
        bar = f'<i class="bar" style="left:{min(zero, end):.2f}%;width:{abs(end - zero):.2f}%"></i>'
    return (
        f'<div class="reward"><p><span>Reward</span>{number}</p>'
        f'<div class="track" {meter}>{bar}<i class="zero" style="left:{zero:.2f}%"></i></div>'
        f'<p class="ends" aria-hidden="true"><span>{signed(low, "g")}</span>'
        f'<span style="left:{zero:.2f}%">0</span><span>{signed(high, "g")}</span></p></div>'
    )


def place(value: float, scale: tuple[float, float]) -> float:
    """Where a reward lies on its scale, in percent; what lies outside stands at the end."""
    low, high = scale
    return 100 * min(1.0, max(0.0, (value - low) / (high - low)))


def signed(value: float, form: str = ".2f") -> str:
    return f"{value:+{form}}".replace("-", "\N{MINUS SIGN}")


def icon(paths: str) -> str:
    return f'<svg class="icon" viewBox="0 0 24 24" aria-hidden="true">{paths}</svg>'
