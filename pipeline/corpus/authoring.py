"""Topic cards as they are written: checked, and turned into JSON Lines.

`assets/corpus/GUIDE.md` tells the line format. A file that ends in `.jsonl` holds finished cards, one a line.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.checkpoint import write_json_lines
from pipeline.corpus.cards import Card
from pipeline.errors import InputError

PASSAGE_WORDS = range(35, 191)
ANSWER_WORDS = range(3, 76)
# Marks an item of a question, and the field that the item belongs to.
ITEMS = {"?": "prompts", "~": "also", "+": "good", "-": "weak", "!": "bad"}


@dataclass
class Draft:
    """A card before it is checked, and where it stands. `lines` gives the lines of single fields, if known."""

    file: Path
    line: int
    content: Any
    lines: dict[str, int] = field(default_factory=dict)

    def problem(self, key: str, what: str) -> str:
        known = key
        while known and known not in self.lines:
            known = known.rpartition(".")[0]
        return f"{self.file}, line {self.lines.get(known, self.line)}: {key or 'the card'}: {what}"


def check(paths: list[Path]) -> str:
    """A line that counts what the card files hold.

    Raises InputError with the first problem, by file, line and field, and the number of further ones.
    """
    cards = checked_cards(paths)
    questions = [question for card in cards for question in card.qa]
    counts = {
        "cards": len(cards),
        "facts": sum(len(card.facts) for card in cards),
        "passages": sum(len(card.passages) for card in cards),
        "questions": len(questions),
        "prompts": sum(len(question.prompts) + len(question.also) for question in questions),
    }
    return ", ".join(f"{count:,} {what}" for what, count in counts.items())


def build(out: Path, paths: list[Path]) -> str:
    """Write the cards of all files to one JSON Lines file; returns and raises as `check` does."""
    write_json_lines(out, [card.model_dump(exclude_defaults=True) for card in checked_cards(paths)])
    return f"{out}: {check([out])}"


def checked_cards(paths: list[Path]) -> list[Card]:
    """The cards of all files. Raises InputError if any of them has a problem, or shares an id or a prompt."""
    cards: list[tuple[Draft, Card]] = []
    problems: list[str] = []
    for path in paths:
        if not path.is_file():
            raise InputError(f"no file {path}; name card files, written as assets/corpus/GUIDE.md tells")
        for draft in drafts(path, problems):
            try:
                cards.append((draft, Card.model_validate(draft.content)))
            except ValidationError as error:
                problems += [draft.problem(".".join(map(str, each["loc"])), each["msg"]) for each in error.errors()]
    for draft, card in cards:
        problems += [draft.problem(key, what) for key, what in offences(card)]
    problems += repeated(cards)
    if problems:
        more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
        raise InputError(problems[0] + more)
    if not cards:
        raise InputError("no cards in the files given; assets/corpus/GUIDE.md tells how to write them")
    return [card for _, card in cards]


def drafts(path: Path, problems: list[str]) -> Iterator[Draft]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text; save it as such") from error
    read = finished_drafts if path.suffix == ".jsonl" else written_drafts
    yield from read(path, lines, problems)


def finished_drafts(path: Path, lines: list[str], problems: list[str]) -> Iterator[Draft]:
    for number, line in enumerate(lines, 1):
        try:
            yield Draft(path, number, json.loads(line))
        except ValueError:
            problems.append(f"{path}, line {number}: not JSON; one card a line is wanted")


def written_drafts(path: Path, lines: list[str], problems: list[str]) -> Iterator[Draft]:
    """The cards of a file in the guide's line format. What they lack or have wrong shows when they are checked."""
    draft: Draft | None = None
    for number, line in enumerate(lines, 1):
        tag, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        if not tag or tag.startswith("#"):
            continue
        if tag == "@":
            if draft:
                yield draft
            name, title = halves(rest)
            card = {"id": name, "domain": name.partition("/")[0], "title": title}
            draft = Draft(path, number, card | {"facts": [], "passages": [], "qa": []})
        elif draft is None:
            problems.append(
                f"{path}, line {number}: stands before the first card; start one with '@ domain/name | Title'"
            )
        elif not add(draft, number, tag, rest):
            problems.append(f"{path}, line {number}: {tag!r} is no tag, or stands before the first 'Q' of its card")
    if draft:
        yield draft


def add(draft: Draft, number: int, tag: str, rest: str) -> bool:
    """Add a line to the card, or return False where it cannot belong to one."""
    questions = draft.content["qa"]
    value: Any
    if tag == "F":
        key, value = "facts", [part.strip() for part in rest.split("|")]
    elif tag == "P":
        key, value = "passages", dict(zip(("style", "text"), halves(rest), strict=True))
    elif tag == "Q":
        key, value = "qa", {"kind": rest, "prompts": [], "also": [], "good": [], "weak": [], "bad": []}
    elif tag in ITEMS and questions:
        key = f"qa.{len(questions) - 1}.{ITEMS[tag]}"
        value = dict(zip(("fails", "text"), halves(rest), strict=True)) if tag == "!" else rest
    else:
        return False
    items = questions[-1][ITEMS[tag]] if tag in ITEMS else draft.content[key]
    draft.lines[f"{key}.{len(items)}"] = number
    items.append(value)
    return True


def halves(text: str) -> tuple[str, str]:
    first, _, second = text.partition("|")
    return first.strip(), second.strip()


def offences(card: Card) -> Iterator[tuple[str, str]]:
    """What a well-formed card has that the guide forbids: field and problem."""
    if card.id.partition("/")[0] != card.domain:
        yield "domain", f"{card.domain!r} is not the first part of the id {card.id!r}"
    for key, text in strings(card.model_dump(), ""):
        if not text.isascii():
            yield key, f"not plain ASCII: {''.join(letter for letter in text if not letter.isascii())[:10]!r}"
        if not text.strip():
            yield key, "empty"
    for number, wordings in enumerate(card.facts):
        if len(wordings) < 2:
            yield f"facts.{number}", "wants 2 or more wordings, split by |"
    for number, passage in enumerate(card.passages):
        yield from length(f"passages.{number}.text", passage.text, PASSAGE_WORDS)
    quick = "/quick-" in card.id
    for number, question in enumerate(card.qa):
        key = f"qa.{number}"
        asked = len(question.prompts) + len(question.also)
        if asked < (2 if quick else 4):
            yield key, f"{asked} prompts; {2 if quick else 4} or more are wanted"
        if not question.weak and not question.bad:
            yield key, "wants a weak or a bad answer"
        for index, answer in enumerate(question.good):
            yield from length(f"{key}.good.{index}", answer, ANSWER_WORDS)


def strings(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Every string in a record with the field that it stands in."""
    if isinstance(value, str):
        yield key, value
    else:
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from strings(item, f"{key}.{name}".lstrip("."))


def length(key: str, text: str, allowed: range) -> Iterator[tuple[str, str]]:
    words = len(text.split())
    if words not in allowed:
        yield key, f"has {words} words; {allowed[0]} to {allowed[-1]} are wanted"


def repeated(cards: list[tuple[Draft, Card]]) -> Iterator[str]:
    """Ids and prompts that more than one card or question has. Case does not count."""
    seen: dict[tuple[str, str], tuple[Draft, str]] = {}
    for draft, card in cards:
        texts = [("id", "id", card.id)]
        for number, question in enumerate(card.qa):
            for name in ("prompts", "also"):
                wordings = enumerate(getattr(question, name))
                texts += [(f"qa.{number}.{name}.{index}", "prompt", text) for index, text in wordings]
        for key, what, text in texts:
            here = (draft, key)
            first, place = seen.setdefault((what, text.lower()), here)
            if (first, place) != here:
                yield draft.problem(key, f"{text!r} stands also in {first.file}, line {first.line}: {place}")
