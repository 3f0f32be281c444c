"""The votes of the people in a room, as rankings: what `pipeline reward` learns from, kept in one SQLite file.

A vote is on the disk before it is acknowledged, however many people vote at once.
"""

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.checkpoint import read_json_lines
from pipeline.corpus.preferences import pairs
from pipeline.corpus.splits import fraction, same_text
from pipeline.errors import InputError
from pipeline.recipe import describe

Criterion = Literal["helpful", "honest", "harmless"]

VOTES = "votes.sqlite"  # in the folder of the rooms
ROOM = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
LONGEST_NAME = 40  # characters of an annotator's name
LONGEST_TEXT = 4_000  # characters of a prompt or an answer
HELD_OUT = 0.2  # share of the prompts whose votes measure the retrained reward model
LARGEST = 1_000_000_000  # bytes that the votes of all rooms may take: strangers must not fill the disk
PAGE = 4096  # bytes, in which SQLite counts
WAITING = 30.0  # seconds that a vote waits for the others' to be written
# One vote a person and set of answers: who votes again changes their mind.
SCHEMA = """
CREATE TABLE IF NOT EXISTS votes (
    vote TEXT NOT NULL PRIMARY KEY,
    room TEXT NOT NULL,
    annotator TEXT NOT NULL,
    task TEXT NOT NULL,
    time TEXT NOT NULL,
    label TEXT NOT NULL,
    UNIQUE (room, annotator, task)
) STRICT
"""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class RankedAnswer(Strict):
    """One of the answers that were ranked; `rank` 1 is the best, and equally good ones share a rank."""

    text: str = Field(max_length=LONGEST_TEXT)
    stopped: bool
    source: str = Field("sft", max_length=LONGEST_NAME)
    rank: int = Field(ge=1)
    grade: dict[str, float] | None = None
    seed: int | None = None


class Decision(Strict):
    """What made one answer better than another: both by their place in the list of answers."""

    better: int = Field(ge=0)
    worse: int = Field(ge=0)
    criterion: Criterion


class Label(Strict):
    """One vote: a ranking in the format of the ranking stage (`pipeline.stages.ranking.FORMAT`), and whose it is.

    What only people's rankings have may be left out, so that `rankings.jsonl` of a family can be read as well.
    """

    id: str = Field(max_length=200)
    prompt: str = Field(min_length=1, max_length=LONGEST_TEXT)
    earlier: list[str] = Field([], exclude_if=lambda turns: not turns)
    kind: str = Field("own", max_length=LONGEST_NAME)
    answers: list[RankedAnswer] = Field(min_length=2, max_length=32)
    annotator: str = Field(min_length=1, max_length=LONGEST_NAME)
    split: Literal["train", "test"]
    vote: str = Field(default_factory=lambda: uuid4().hex, min_length=1, max_length=64)
    room: str = Field("", max_length=LONGEST_NAME)
    time: str = Field("", max_length=40)
    family: str = Field("", max_length=200)
    criteria: list[Decision] = Field([], max_length=500)
    all_bad: bool = False

    @model_validator(mode="after")
    def criteria_name_answers(self) -> "Label":
        for decision in self.criteria:
            if max(decision.better, decision.worse) >= len(self.answers):
                raise ValueError("'criteria' names an answer that is not there")
        return self

    @property
    def task(self) -> str:
        """The same for everybody who ranked these answers to this prompt, in whatever order they saw them."""
        texts = sorted(answer.text for answer in self.answers)
        return hashlib.sha256(json.dumps([self.prompt, texts]).encode("utf-8", "replace")).hexdigest()

    def record(self) -> dict[str, Any]:
        """The vote as a line of JSON Lines, and as what the stages read."""
        return self.model_dump()


@dataclass(frozen=True)
class Tally:
    """How many votes a room has, and of how many people."""

    votes: int
    people: int


class Labels:
    """The votes of all rooms in one file. Every call opens it anew: threads and processes may share it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self.connected() as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(SCHEMA)

    @contextmanager
    def connected(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self.path, timeout=WAITING, isolation_level=None)
        try:
            # With the write-ahead log, anything less may lose the last votes when the power fails.
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA max_page_count = {LARGEST // PAGE}")
            yield connection
        finally:
            connection.close()

    def add(self, labels: Sequence[Label]) -> None:
        """Keep the votes, all or none. A vote that is there already, or of who voted on this already, is replaced.

        Raises InputError when the file has reached its size, or the disk is full.
        """
        rows = [
            (label.vote, label.room, label.annotator, label.task, label.time, json.dumps(label.record()))
            for label in labels
        ]
        with self.connected() as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany("INSERT OR REPLACE INTO votes VALUES (?, ?, ?, ?, ?, ?)", rows)
                connection.execute("COMMIT")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                    raise
                raise InputError(
                    "there is no room for more votes here; export yours, and tell who runs the page"
                ) from error

    def withdraw(self, room: str, annotator: str, vote: str) -> bool:
        """Take a vote back; whether there was such a vote of this person."""
        with self.connected() as connection:
            gone = connection.execute(
                "DELETE FROM votes WHERE vote = ? AND room = ? AND annotator = ?", (vote, room, annotator)
            )
            return gone.rowcount == 1

    def of(self, room: str) -> list[Label]:
        """The votes of a room, oldest first."""
        with self.connected() as connection:
            rows = connection.execute("SELECT label FROM votes WHERE room = ? ORDER BY time, vote", (room,)).fetchall()
        return [Label.model_validate_json(label) for (label,) in rows]

    def tally(self, room: str) -> Tally:
        with self.connected() as connection:
            query = "SELECT count(*), count(DISTINCT annotator) FROM votes WHERE room = ?"
            return Tally(*connection.execute(query, (room,)).fetchone())


def room_name(text: str) -> str:
    """The name of a room as it stands in links and folders. Raises InputError if it could not be one."""
    name = "-".join(text.strip().lower().split())
    if not ROOM.fullmatch(name):
        raise InputError("a room's name has 1 to 40 letters, digits or hyphens, and begins with a letter or digit")
    return name


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def split_of(prompt: str) -> Literal["train", "test"]:
    """All votes on one prompt stand on one side, fixed by a hash."""
    return "test" if fraction("vote", same_text(prompt)) < HELD_OUT else "train"


def read_labels(path: Path) -> list[Label]:
    """The votes of a JSON Lines file, or rankings without voters. Raises InputError with line and field."""
    labels = []
    for number, record in enumerate(read_json_lines(path), 1):
        try:
            labels.append(Label.model_validate(record))
        except ValidationError as error:
            raise InputError(f"{path}, line {number}: {describe(error)}") from error
    return labels


def preferences(labels: Sequence[Label], seed: int) -> list[dict[str, Any]]:
    """Every pair of a better and a worse answer, in the conversational form that TRL's trainers take.

    {"prompt": [message], "chosen": [message], "rejected": [message]}
    """
    return [
        {
            "prompt": [{"role": "user", "content": label.prompt}],
            "chosen": [{"role": "assistant", "content": better["text"]}],
            "rejected": [{"role": "assistant", "content": worse["text"]}],
        }
        for label in labels
        for better, worse in pairs(label.record(), seed)
    ]
