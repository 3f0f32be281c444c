"""Topic cards, countries and prompt lists: the project's own text, as typed records.

How they are written is told in `assets/corpus/GUIDE.md`.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import InputError
from pipeline.recipe import REPOSITORY, CorpusSettings, describe

Kind = Literal[
    "fact", "advice", "howto", "yesno", "explain", "define", "creative", "chat",
    "identity", "realtime", "personal", "unknown", "support", "harmful", "lookalike", "math",
]  # fmt: skip
UNKNOWABLE: tuple[Kind, ...] = ("realtime", "personal", "unknown")
# Kinds whose answers are knowledge about the world, and not manners of an assistant.
KNOWLEDGE: set[Kind] = {"fact", "advice", "howto", "yesno", "explain", "define", "creative", "lookalike", "math"}
Criterion = Literal["helpful", "honest", "harmless"]


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


R = TypeVar("R", bound=Record)


class Passage(Record):
    style: Literal["encyclopedia", "explainer", "blog", "story", "dialogue", "news"]
    text: str = Field(min_length=1)


class BadAnswer(Record):
    """An answer that a model which only imitates would give, and the criterion that it fails worst."""

    fails: Criterion
    text: str = Field(min_length=1)


class Question(Record):
    """One question in several wordings, with graded answers. `also` are further wordings, for training alone."""

    kind: Kind
    prompts: list[str] = Field(min_length=2)
    also: list[str] = []
    good: list[str] = Field(min_length=1)
    weak: list[str]
    bad: list[BadAnswer]


class Card(Record):
    """One authored topic. Quick cards have questions only."""

    id: str = Field(pattern=r"^[a-z0-9-]+/[a-z0-9-]+$")
    domain: str
    title: str = Field(min_length=1)
    facts: list[list[str]]
    passages: list[Passage]
    qa: list[Question] = Field(min_length=1)


class Country(Record):
    country: str
    capital: str
    demonym: str
    continent: str
    language: str
    currency: str
    landmark: str
    known_for: str
    neighbors: list[str]


class ListedPrompt(Record):
    """A prompt without answers, for ranking and RLHF."""

    prompt: str = Field(min_length=1)
    kind: Kind
    category: str | None = None


@dataclass(frozen=True, eq=False)
class Corpus:
    """All authored text of a recipe, and the hash that names it. It equals itself alone, so that it can be hashed."""

    cards: list[Card]
    countries: list[Country]
    prompts: list[ListedPrompt]
    sha256: str


def load_corpus(settings: CorpusSettings) -> Corpus:
    """Read and check the authored corpus. Raises InputError that names file, line and field.

    Who asks again is given the same one, until a file of it changes.
    """
    folder = REPOSITORY / settings.cards
    if not folder.is_dir():
        raise InputError(f"no corpus folder {folder}; 'corpus.cards' in the recipe is relative to the repository")
    states = [(file, file.stat()) for file in sorted(folder.rglob("*.jsonl"))]
    versions = tuple((file, state.st_mtime_ns, state.st_size) for file, state in states)
    return read_corpus(folder, None if settings.domains is None else tuple(settings.domains), versions)


@lru_cache(maxsize=2)
def read_corpus(folder: Path, domains: tuple[str, ...] | None, versions: tuple[tuple[Path, int, int], ...]) -> Corpus:
    """The corpus in a folder as its files are now; `versions` only tells one reading from the next."""
    files = sorted((folder / "cards").glob("*.jsonl"))
    lists = sorted(folder.glob("prompts-*.jsonl"))
    countries = folder / "countries.jsonl"
    if not files:
        raise InputError(f"no cards/*.jsonl in {folder}")
    cards = [card for file in files for card in read_records(file, Card)]
    if domains is not None:
        unknown = set(domains) - {card.domain for card in cards}
        if unknown:
            raise InputError(f"no card has the domain {sorted(unknown)[0]!r}, named in 'corpus.domains'")
        cards = [card for card in cards if card.domain in domains]
    digest = hashlib.sha256()
    for file in [*files, countries, *lists]:
        digest.update(file.read_bytes())
    return Corpus(
        cards,
        list(read_records(countries, Country)),
        [prompt for file in lists for prompt in read_records(file, ListedPrompt)],
        digest.hexdigest(),
    )


def read_records(path: Path, record: type[R]) -> Iterator[R]:
    """The checked records of a JSON Lines file. Raises InputError that names file, line and field."""
    if not path.is_file():
        raise InputError(f"no file {path}")
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            yield record.model_validate_json(line)
        except ValidationError as error:
            raise InputError(f"{path}, line {number}: {describe(error)}") from error
