"""Next-token distributions as HTML: an answer token by token, and lists of candidates side by side."""

import math
from collections import Counter
from collections.abc import Iterable
from html import escape

from pipeline.inference.tokens import TOP, Category, Filling, Prediction, Reading, Token
from ui.columns import LOOKS, icon, signed

TICK = '<path d="M5 12.5l4.5 4.5L19 7.5"/>'
MARKS = {
    " ": "\N{OPEN BOX}",
    "\n": "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}",
    "\t": "\N{RIGHTWARDS ARROW TO BAR}",
}
# Enough of the text before a token to find the place again.
BEFORE_CHARACTERS = 40
CATEGORIES: dict[Category, str] = {
    "unshifted": "the first choice of {} too",
    "marginal": "second or third choice of {}",
    "shifted": "not among the first three of {}",
}
LESSON = (
    "Most tokens do not change from SFT to RLHF. Those that do are where the behaviour changed. "
    "The three kinds are those of Lin et al. 2023."
)
FIRST = "{} is the first stage. There is no earlier one to compare it with, so nothing is marked in its answer."
READS = {
    "base": "reads your prompt as plain text",
    "sft": "reads your prompt as a question in a chat",
    "dpo": "reads your prompt as a question in a chat",
    "rlhf": "reads your prompt as a question in a chat",
}


def visible(token: Token) -> str:
    """A token on its own, with marks for what could not be seen."""
    if token.kind == "text":
        return "".join(visible_character(character) for character in token.text)
    name = token.text if token.kind == "control" else f"byte{'s' * (' ' in token.text)} {token.text}"
    return f'<span class="named">{escape(name)}</span>'


def visible_character(character: str) -> str:
    if character in MARKS:
        return f'<span class="mark">{MARKS[character]}</span>'
    return escape(character) if character.isprintable() else f'<span class="named">U+{ord(character):04X}</span>'


def running(text: str) -> str:
    """Text of an answer, whose spaces are seen anyway; one paragraph, so that the lists below it stay in place."""
    return "".join(
        " " if character == " " else visible_character(character) + "<wbr>" * (character == "\n") for character in text
    )


def plain(token: Token) -> str:
    """A token in a sentence, without markup."""
    return "".join(MARKS.get(character, character) for character in token.text)


def percent(share: float) -> str:
    if share < 0.00001:
        return "under 0.001%"
    return f"{100 * share:.1f}%" if share >= 0.001 else f"{100 * share:.3f}%"


def writing(stage: str, text: str) -> str:
    """An answer that is not whole yet: nothing to choose in it."""
    return f'<div class="reading {stage}" aria-busy="true"><p class="written">{running(text)}</p></div>'


def idle(words: str) -> str:
    return f'<div class="reading"><p class="aside">{words}</p></div>'


def answer(reading: Reading) -> str:
    """The answer with its tokens to choose from, what the marks mean, and a line about one token."""
    tokens = "".join(option(reading, position) for position in range(len(reading.tokens)))
    return (
        f'<div class="reading {reading.stage}">'
        f'<div class="written" role="listbox" aria-orientation="horizontal" '
        f'aria-label="Answer of {LOOKS[reading.stage].name}, token by token">{tokens}</div>'
        f'<p class="detail" aria-live="polite">{detail(reading, 0)}</p>{legend(reading)}</div>'
    )


def option(reading: Reading, position: int) -> str:
    chosen = position == 0
    token = reading.tokens[position]
    return (
        f'<span role="option" class="{reading.category(position) or ""}" aria-selected="{str(chosen).lower()}" '
        f'tabindex="{0 if chosen else -1}" data-detail="{detail(reading, position)}">'
        f"{running(token.text) if token.kind == 'text' else visible(token)}</span>"
    )


def detail(reading: Reading, position: int) -> str:
    """One token in words: how likely it was to this stage and to the one before."""
    own = reading.predictions[reading.stage][position]
    words = f"Token {position + 1} of {len(reading.tokens)}, \u201c{plain(reading.tokens[position])}\u201d: "
    words += f"{LOOKS[reading.stage].name} {odds(own)}"
    before, ratio = reading.before, reading.log_ratio(position)
    if before is not None and ratio is not None:
        words += f", {LOOKS[before].name} {odds(reading.predictions[before][position])}. "
        words += f"Log-ratio {signed(ratio)}, {reading.category(position)}"
    return escape(f"{words}.")


def odds(prediction: Prediction) -> str:
    return f"{percent(math.exp(prediction.logprob))} (rank {prediction.rank:,})"


def legend(reading: Reading) -> str:
    if reading.before is None:
        return f'<p class="lesson">{FIRST.format(LOOKS[reading.stage].name)}</p>'
    before = LOOKS[reading.before].name
    counts = Counter(reading.category(position) for position in range(len(reading.tokens)))
    entries = "".join(
        f'<li><span class="{category}">{category}</span> <b>{counts[category]}</b> '
        f"({counts[category] / len(reading.tokens):.0%}) <small>{meaning.format(before)}</small></li>"
        for category, meaning in CATEGORIES.items()
    )
    return f'<ul class="legend">{entries}</ul><p class="lesson">{LESSON}</p>'


def no_predictions(stages: Iterable[str]) -> str:
    """The room that `predictions` will take."""
    return sides({stage: candidates([]) + '<p class="took">&nbsp;</p>' for stage in stages}, READS, "&nbsp;")


def predictions(reading: Reading, position: int = 0) -> str:
    """What each stage would say next at one position of the answer."""
    token = visible(reading.tokens[position])
    lists = {}
    for stage, positions in reading.predictions.items():
        prediction = positions[position]
        rows = [
            (visible(candidate.token), math.exp(candidate.logprob), candidate.token == reading.tokens[position])
            for candidate in prediction.top
        ]
        took = f'{icon(TICK)} <b class="token">{token}</b> {odds(prediction)}'
        lists[stage] = candidates(rows) + f'<p class="took">{took}</p>'
    name = LOOKS[reading.stage].name
    before = "".join(token.text for token in reading.tokens[:position])
    dots = "\N{HORIZONTAL ELLIPSIS}" * (len(before) > BEFORE_CHARACTERS)
    place = (
        f"After \u201c{dots}{running(before[-BEFORE_CHARACTERS:])}\u201d" if before else "At the start of its answer"
    )
    return sides(lists, READS, f'{place}, {name} wrote <span class="wrote">{icon(TICK)} <b>{token}</b></span>')


def fillings(words: dict[str, list[Filling]]) -> str:
    """The words of each stage for a blank, as shares of the candidates."""
    lists = {
        stage: candidates(
            [(escape(filling.word), filling.fitting, False) for filling in best[:TOP]],
            [percent(filling.alone) for filling in best],
        )
        for stage, best in words.items()
    }
    heads = '<p class="heads"><span>word</span><span>whole sentence</span><span>left side</span></p>'
    return sides({stage: heads + rows for stage, rows in lists.items()}, dict.fromkeys(LOOKS, "continues plain text"))


def candidates(rows: list[tuple[str, float, bool]], more: list[str] | None = None) -> str:
    """Candidates (markup, share, whether it was taken) with bars, ten lines high; `more` is a second figure each."""
    lines = []
    for number, (token, share, taken) in enumerate(rows):
        second = f'<span class="second">{more[number]}</span>' if more else ""
        tick = f'<span class="tick" title="taken">{icon(TICK)}<span class="unseen">taken</span></span>' if taken else ""
        lines.append(
            f'<li class="{"taken" if taken else ""}"><bdi class="token">{token}</bdi>{tick}'
            f'<span class="track"><i style="width:{100 * share:.2f}%"></i></span>'
            f'<span class="percent">{percent(share)}</span>{second}</li>'
        )
    empty = '<li class="empty" aria-hidden="true">&nbsp;</li>' * (TOP - len(rows))
    return f'<ol class="candidates{" two" if more is not None else ""}">{"".join(lines)}{empty}</ol>'


def sides(bodies: dict[str, str], reads: dict[str, str], title: str = "") -> str:
    """One body a stage, side by side under the stages' heads."""
    columns = "".join(
        f'<section class="side {stage}"><h3>{icon(LOOKS[stage].icon)}{LOOKS[stage].name} '
        f"<small>{reads[stage]}</small></h3>{body}</section>"
        for stage, body in bodies.items()
    )
    head = f'<div class="spot"><h2>What would each stage say next?</h2><p>{title}</p></div>' if title else ""
    return f'{head}<div class="sides">{columns}</div>'
