"""The rooms of a page: the votes of each, its adapters beside them, and what trains now."""

import hashlib
import importlib.util
import re
import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pipeline.checkpoint import RECORD, Checkpoint, Family
from pipeline.errors import InputError
from pipeline.inference.models import RewardModel, StageModel, plain
from pipeline.rooms.adapters import policy_of, reward_of
from pipeline.rooms.collecting import Collecting, collecting
from pipeline.rooms.labels import ROOM, VOTES, Label, Labels, now, room_name
from pipeline.rooms.push import Push
from pipeline.run import RECIPE
from ui.answering import LoadedFamily
from ui.jobs import Job, Jobs

OWN = "own-"  # begins the name of the room that a browser has for itself
PERSON = re.compile(r"[0-9a-f]{16}")  # who a browser says it is
RETRAIN, MOVE = "retrain", "move"
WORK = {RETRAIN: "pipeline.rooms.reward.retrain", MOVE: "pipeline.rooms.policy.move"}
STAGES = {RETRAIN: "reward", MOVE: "rlhf"}
LONGEST_NICKNAME = 24  # characters
LARGEST = 10_000_000_000  # bytes that votes and adapters of all rooms may take before nobody trains any more
MODELS_KEPT = 8  # of rooms, ready to be asked
NO_TRAINING = "training is not installed here: run the page from a clone of the project, with: make demo"


@dataclass(frozen=True)
class Rooms:
    """All that is kept of people lies in one folder, one room's adapters in a folder of its name."""

    family: LoadedFamily
    folder: Path
    labels: Labels
    jobs: Jobs
    collecting: Collecting | None

    def place(self, room: str) -> Family:
        """The folder of a room. Raises InputError before a room was entered: no other name may become a path."""
        if not ROOM.fullmatch(room):
            raise InputError("enter a room first")
        return Family(self.folder / room)

    def vote(self, label: Label) -> None:
        """Keep a vote, and collect it where that is wanted."""
        self.labels.add([label])
        if self.collecting:
            self.collecting.add(label.record())

    def withdraw(self, label: Label) -> None:
        self.labels.withdraw(label.room, label.annotator, label.vote)
        if self.collecting:
            self.collecting.add({"withdrawn": label.vote, "time": now()})

    def trained(self, room: str, kind: str) -> Checkpoint | None:
        """The newest adapter of a room, if it has one."""
        place, stage = self.place(room), STAGES[kind]
        return place.checkpoint(stage) if place.has(stage) else None

    def reward(self, room: str) -> RewardModel | None:
        """The reward model as this room has changed it; the family's own before that."""
        written = self.written(room, RETRAIN)
        return kept_reward(self.family.files, self.folder / room, written) if written else self.family.reward

    def policy(self, room: str) -> StageModel:
        """The policy as this room has moved it. Raises InputError if it has not yet."""
        return kept_policy(self.family.files, self.folder / room, self.written(room, MOVE))

    def written(self, room: str, kind: str) -> int:
        """When the newest adapter of a room was written, in nanoseconds; 0 if it has none."""
        place, stage = self.place(room), STAGES[kind]
        return (place.path / stage / RECORD).stat().st_mtime_ns if place.has(stage) else 0

    def retrain(self, room: str) -> Job:
        """Queue the training of the reward model on the room's votes. Raises InputError if it cannot be."""
        self.check("ranking", "reward")
        votes = self.labels.of(room)
        if not votes:
            raise InputError("this room has no votes yet; rank a few answers first")
        return self.jobs.start(room, RETRAIN, WORK[RETRAIN], self.family.files, votes, self.place(room))

    def move(self, room: str, prompts: list[str], start: str, steps: int, kl: float) -> Job:
        """Queue a short RLHF run from a stage of the family. Raises InputError if it cannot be."""
        self.check("reward", start)
        place = self.place(room)
        rewarding = place if place.has("reward") else None
        push = Push(start, steps, kl)
        return self.jobs.start(room, MOVE, WORK[MOVE], self.family.files, rewarding, prompts, push, place)

    def check(self, *stages: str) -> None:
        """Raise InputError if the training packages or one of the stages is missing, or there is no room for more."""
        if importlib.util.find_spec("trl") is None:
            raise InputError(NO_TRAINING)
        if sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file()) > LARGEST:
            raise InputError("the rooms have filled their part of the disk; tell who runs the page to remove old ones")
        for stage in stages:
            if not self.family.files.has(stage):
                raise InputError(f"this family has no {stage} stage yet; train it with: python -m pipeline run")
        if not (self.family.files.path / RECIPE).is_file():
            raise InputError("this family's recipe is missing; train the family again")


@lru_cache(MODELS_KEPT)
def kept_reward(family: Family, room: Path, written: int) -> RewardModel:
    return reward_of(family, Family(room))


@lru_cache(MODELS_KEPT)
def kept_policy(family: Family, room: Path, written: int) -> StageModel:
    return policy_of(family, Family(room))


def open_rooms(family: LoadedFamily, folder: Path | None) -> Rooms:
    """The rooms in a folder; without one, in a temporary folder that is forgotten with the page.

    Raises InputError if votes are to be collected, and cannot be.
    """
    folder = folder or Path(tempfile.mkdtemp(prefix="stagewise-rooms-"))
    return Rooms(family, folder, Labels(folder / VOTES), Jobs(), collecting(folder / ".collected"))


def somebody(stored: object) -> str:
    """Who a browser says it is; a new person for what no page has stored there."""
    return stored if isinstance(stored, str) and PERSON.fullmatch(stored) else secrets.token_hex(8)


def open_room(asked: str, person: str) -> str:
    """The room of that name, or without a name the person's own. Raises InputError for what is no name."""
    if not PERSON.fullmatch(person):
        raise InputError("your browser has lost its own room; load the page again")
    if not asked.strip():
        return OWN + person
    name = room_name(asked)
    if name.startswith(OWN):
        raise InputError(f"names that begin with {OWN} are taken: choose another")
    return name


def annotator(nickname: str, person: str) -> str:
    """How a person's votes are signed: two people of one name are told apart, and nobody's room is given away."""
    mark = hashlib.sha256(plain(person).encode()).hexdigest()[:6]
    return f"{plain(nickname).strip()[:LONGEST_NICKNAME] or 'anonymous'} ({mark})"


def unranked(prompts: Sequence[str], votes: Sequence[Label], annotator: str) -> list[str]:
    """The prompts on which this person has not voted yet, in their order."""
    done = {vote.prompt for vote in votes if vote.annotator == annotator}
    return [prompt for prompt in prompts if prompt not in done]
