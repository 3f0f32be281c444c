"""A column as HTML. Everything that a model or a person wrote is escaped: it is shown as text."""

from dataclasses import dataclass
from html import escape

from ui.answering import OWN, State, View, told


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
    "dpo": Look(
        "DPO",
        "after pairs of answers",
        "Was shown two answers at a time, and learned to write the preferred one, without a reward model.",
        '<path d="M4 6h7M4 12h7M4 18h7M15 8l3-3 3 3M18 5v14"/>',
    ),
    "rlhf": Look(
        "RLHF",
        "after rankings and rewards",
        "Was rewarded for answers like those ranked best: helpful, honest, harmless.",
        '<path d="M4 5h16v11H10l-5 4v-4H4z"/><path d="M8.5 10.5l2.5 2.5 4.5-5"/>',
    ),
    OWN: Look(
        "Yours",
        "after your votes",
        "Was rewarded by your own room's reward model, for whatever you ranked best.",
        '<path d="M4 5h16v11H10l-5 4v-4H4z"/><path d="M12 13.5l-3-3a1.7 1.7 0 0 1 3-1.6 1.7 1.7 0 0 1 3 1.6z"/>',
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
DASH = "\N{EN DASH}"


# Runs in each column's component. What is enlarged stands on the containers: the column's own HTML comes and goes.
TOOLS = """
const place = element.closest(".place");
const columns = element.closest("#columns");
const enlarge = (larger) => {
  [place, columns].forEach((part) => part.toggleAttribute("data-large", larger));
  element.querySelector(larger ? ".shrink" : ".enlarge").focus();
};
const copy = async (text) => {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // Browsers lend the clipboard to safe origins only, and a classroom's own server is none.
  const area = Object.assign(document.createElement("textarea"), {value: text});
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
};
element.addEventListener("click", async (event) => {
  const button = event.target.closest(".tools button");
  if (!button) return;
  if (!button.matches(".copy")) return enlarge(button.matches(".enlarge"));
  await copy(element.querySelector(".written").textContent);
  place.toggleAttribute("data-copied", true);
  element.querySelector(".tools [role=status]").textContent = "Copied";
  setTimeout(() => {
    place.toggleAttribute("data-copied", false);
    element.querySelector(".tools [role=status]").textContent = "";
  }, 2000);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && place.hasAttribute("data-large")) enlarge(false);
});
"""
COPY = '<rect x="8" y="8" width="12" height="12" rx="2"/><path d="M16 8V4H4v12h4"/>'
COPIED = '<path d="M5 12.5l4.5 4.5L19 7.5"/>'
ENLARGE = '<path d="M14 4h6v6M20 4l-7 7M10 20H4v-6M4 20l7-7"/>'
SHRINK = '<path d="M20 10h-6V4M14 10l6-6M4 14h6v6M10 14l-6 6"/>'


def column(view: View, scale: tuple[float, float], letter: str = "", hidden: bool = False) -> str:
    """One stage's column, whatever state it is in.

    While a class guesses the columns have letters; a `hidden` one shows nothing that names its stage.
    """
    stage = "" if hidden else f" {view.stage}"
    marked = f' data-letter="{letter}"' if letter else ""
    busy = str(view.state in BUSY).lower()
    return (
        f'<section class="stage{stage}" data-state="{view.state}"{marked} aria-busy="{busy}">'
        f"<header>{head(view, letter, hidden)}</header>"
        f'<div class="answer">{body(view, hidden)}</div>'
        f'<div class="figures">{ending(view)}{reward(view, scale, hidden)}</div>'
        "</section>"
    )


def head(view: View, letter: str, hidden: bool) -> str:
    """Name, what one can do with the column, and what its stage has learned."""
    if hidden:
        name = letter
        words = f"<h2>{letter}</h2><p>One of the three stages. Which one writes like this?</p>"
    else:
        look = LOOKS[view.stage]
        name = look.name
        title = f"{icon(look.icon)}{name} "
        title += f'<span class="letter">{letter}</span>' if letter else f"<small>{look.after}</small>"
        words = f"<h2>{title}</h2><p>{escape(view.about or look.learned)}</p>"
        words += f'<p class="source">{escape(view.source)}</p>' if view.source else ""
    return words + tools(name, bool(view.text.strip()))


def tools(name: str, written: bool) -> str:
    """Copy and enlarge. One button of a pair is shown at a time, see the style and the script."""
    buttons = (
        ("copy", f"Copy the answer of {name}", icon(COPY, "before") + icon(COPIED, "after")),
        ("enlarge", f"Enlarge {name}", icon(ENLARGE)),
        ("shrink", "Show all columns", icon(SHRINK)),
    )
    return '<div class="tools"><span class="unseen" role="status"></span>' + "".join(
        f'<button type="button" class="{does}" aria-label="{label}" title="{label}"'
        f"{' disabled' * (does == 'copy' and not written)}>{picture}</button>"
        for does, label, picture in buttons
    ) + "</div>"  # fmt: skip


def body(view: View, hidden: bool = False) -> str:
    if view.state == "untrained":
        return '<p class="aside">This stage is not trained yet. The column fills once its checkpoint is there.</p>'
    room = f'<p class="room" aria-hidden="true">{"answer " * (view.limit * CHARACTERS_PER_TOKEN // 7)}</p>'
    if view.state == "idle":
        return room + '<p class="aside">Its answer will stand here.</p>'
    text = view.text
    given = ""
    if hidden:
        # What base was given would give it away, and so would going on from it in a new line.
        text = text.lstrip()
    elif view.stage == "base":
        given = f'<span class="given">{escape(start(view))}</span>'
    if view.state in ("stopped", "cut") and not view.text.strip():
        given += '<span class="aside">It wrote nothing.</span>'
    caret = '<span class="caret"></span>' if view.state in ("waiting", "writing") else ""
    error = f'<p class="error" role="alert">This column failed: {escape(view.error)}</p>' if view.error else ""
    return f'{room}<div><p class="text">{given}<span class="written">{escape(text)}</span>{caret}</p>{error}</div>'


def start(view: View) -> str:
    """What base was given to go on from."""
    given = view.given or view.prompt
    return given if len(given) <= GIVEN_CHARACTERS else "\N{HORIZONTAL ELLIPSIS}" + given[-GIVEN_CHARACTERS:]


def ending(view: View) -> str:
    """How the answer ended, its tokens and its speed."""
    words, paths = ENDINGS[view.state]
    if view.place:
        words += f", place {view.place} in the queue"
    speed = (
        f"{view.tokens / view.seconds:.0f}<span class='unit'> tokens</span>/s" if view.tokens and view.seconds else ""
    )
    tokens = f"{view.tokens} token{'s' * (view.tokens != 1)}" if view.tokens else ""
    return (
        f'<p class="ending"><span class="how">{icon(paths) if paths else ""}{words}</span>'
        f'<span class="count">{tokens}</span><span class="speed">{speed}</span></p>'
    )


def reward(view: View, scale: tuple[float, float], hidden: bool = False) -> str:
    """The reward as a bar from zero on the family's fixed scale, with the number beside it."""
    low, high = scale
    number = f'<span class="none">{"after the vote" if hidden else DASH}</span>'
    bar = meter = ""
    if view.reward is not None and not hidden:
        number = f'<span class="number">{signed(view.reward)}</span>'
        meter = f'role="meter" aria-label="Reward" aria-valuemin="{low:g}" aria-valuemax="{high:g}" '
        meter += f'aria-valuenow="{view.reward:.2f}"'
        bar = f'<i class="bar" style="{span(view.reward, scale)}"></i>'
    return (
        f'<div class="reward"><span>Reward</span>'
        f'<div class="track" {meter}>{bar}<i class="zero" style="left:{place(0.0, scale):.2f}%"></i></div>'
        f"{number}</div>"
    )


def lane(view: View, scale: tuple[float, float], letter: str = "", hidden: bool = False) -> str:
    """One line of the picture under the columns: a stage's name, and its reward as a mark with the number."""
    stage = "" if hidden else f" {view.stage}"
    name = letter if hidden else icon(LOOKS[view.stage].icon) + LOOKS[view.stage].name
    mark = ""
    if view.reward is not None and not hidden:
        side = "right" if view.reward >= 0 else "left"
        mark = f'<i class="stem" style="{span(view.reward, scale)}"></i>'
        mark += f'<i class="mark" style="left:{place(view.reward, scale):.2f}%"></i>'
        mark += f'<b class="{side}" style="left:{place(view.reward, scale):.2f}%">{signed(view.reward)}</b>'
    return (
        f'<div class="lane{stage}"><span class="name">{name}</span><div class="line">'
        f'<i class="zero" style="left:{place(0.0, scale):.2f}%"></i>{mark}</div></div>'
    )


def axis(scale: tuple[float, float]) -> str:
    """The numbers under the lanes."""
    low, high = scale
    return (
        f'<div class="axis"><span>{signed(low, "g")} <small>liked less</small></span>'
        f'<span style="left:{place(0.0, scale):.2f}%">0</span>'
        f"<span><small>liked more</small> {signed(high, 'g')}</span></div>"
    )


def span(value: float, scale: tuple[float, float]) -> str:
    """The style of a line from zero to a value."""
    zero, end = place(0.0, scale), place(value, scale)
    return f"left:{min(zero, end):.2f}%;width:{abs(end - zero):.2f}%"


def place(value: float, scale: tuple[float, float]) -> float:
    """Where a reward lies on its scale, in percent; what lies outside stands at the end."""
    low, high = scale
    return 100 * min(1.0, max(0.0, (value - low) / (high - low)))


def signed(value: float, form: str = ".2f") -> str:
    return f"{value:+{form}}".replace("-", "\N{MINUS SIGN}")


def problem(message: str) -> str:
    """What went wrong, in a line that screen readers speak at once."""
    return f'<p class="problem" role="alert">{escape(told(message))}</p>'


def icon(paths: str, more: str = "") -> str:
    return f'<svg class="{f"icon {more}".strip()}" viewBox="0 0 24 24" aria-hidden="true">{paths}</svg>'
