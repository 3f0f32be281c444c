"""The tab where people are in the loop: they rank answers, retrain the reward model, and watch the policy move."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import gradio as gr
from pydantic import ValidationError

from pipeline.errors import InputError
from pipeline.inference.decoding import Decoding
from pipeline.inference.models import RewardModel, plain
from pipeline.rooms.agreement import agreement_with
from pipeline.rooms.answers import Candidate, candidates, least_sure
from pipeline.rooms.labels import (
    LONGEST_NAME,
    Criterion,
    Decision,
    Label,
    RankedAnswer,
    Strict,
    now,
    preferences,
    read_labels,
    split_of,
)
from ui.answering import LoadedFamily
from ui.columns import problem
from ui.compare import Comparison
from ui.controls import Controls
from ui.presets import presets
from ui.room_panels import panels, stamp
from ui.room_training import training_half
from ui.rooms import LONGEST_NICKNAME, Rooms, annotator, open_room, somebody, unranked
from ui.sharing import script

COUNTS = (2, 3, 4)
LIVELY = 0.8  # temperature at which SFT's answers to one prompt differ
LONGEST = 64  # tokens: enough to judge an answer by, short enough to read four of them
UNSURE_AMONG = 6  # prompts that are tried to find the one where the reward model is least sure
SECONDS_BETWEEN_LOOKS = 3
ABOUT = (
    "<h2>Rank answers</h2><p>This is the human feedback in RLHF. SFT answers one prompt several times; you put the "
    "answers in order, before you see what the reward model thinks of them. Drag them, use the arrows, or focus one "
    "and press \N{UPWARDS ARROW}, \N{DOWNWARDS ARROW}, a number, or = for a tie.</p>"
)
BALLOT = (
    '<div class="ballot"><ol></ol><button type="button" class="all-bad" aria-pressed="false">All are bad</button>'
    '<p class="unseen" role="status"></p></div>'
)
SAVE = """(file) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([file.text], {type: "application/jsonl"}));
  link.download = file.name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}"""
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
# Sampling several answers at once takes a processor for a second or more: one after the other.
HEAVY: dict[str, Any] = {"concurrency_id": "ranking", "concurrency_limit": 1, **QUIET}
SKIP: Any = gr.skip()
CAN, CANNOT = gr.update(interactive=True), gr.update(interactive=False)  # a button


@dataclass(frozen=True)
class Task:
    """What one person ranks now."""

    number: int
    prompt: str
    kind: str
    answers: tuple[Candidate, ...]

    @property
    def exchanges(self) -> list[tuple[str, str]]:
        return [(self.prompt, answer.text) for answer in self.answers]

    def ballot(self) -> dict[str, Any]:
        """What `assets/script/ranking.js` lets a person put in order."""
        places = list(range(len(self.answers)))
        answers = [answer.text for answer in self.answers]
        untouched = {"tied": [False for _ in places], "reasons": {}, "bad": False, "cast": False, "rewards": None}
        return {"task": self.number, "answers": answers, "order": places, **untouched}


class Ballot(Strict):
    """The parts of a ballot that the browser decides."""

    order: list[int]
    tied: list[bool]
    reasons: dict[str, Criterion]
    bad: bool

    def ranks(self) -> list[int]:
        """The rank of every answer."""
        ranks: dict[int, int] = {}
        for place, answer in enumerate(self.order):
            tied = place > 0 and (self.bad or self.tied[place])
            ranks[answer] = ranks[self.order[place - 1]] if tied else place + 1
        return [ranks[answer] for answer in range(len(ranks))]

    def criteria(self) -> list[Decision]:
        return [
            Decision(better=self.order[place - 1], worse=self.order[place], criterion=self.reasons[str(place)])
            for place in range(1, len(self.order))
            if str(place) in self.reasons and not self.bad and not self.tied[place]
        ]


def rank_tab(
    family: LoadedFamily, rooms: Rooms, blocks: gr.Blocks, tab: gr.Tab, tabs: gr.Tabs, comparison: Comparison
) -> Controls | None:
    """Lay out the tab inside the current `gr.Blocks` and connect its events."""
    if family.published:
        gr.HTML("<p>Votes train the models on, and this family was trained elsewhere: nothing is ranked.</p>")
        return None
    if "sft" not in family.models:
        gr.HTML("<p>This family has no SFT stage yet, so there are no answers to rank.</p>", elem_id="no-rank")
        return None
    person = gr.BrowserState("", storage_key="stagewise-annotator", secret="stagewise")
    room = gr.State("")
    # Changes when something that the room shows has changed.
    seen = gr.State(None)
    with gr.Row(elem_id="room-bar"):
        named = gr.Textbox(label="Room", placeholder="such as class-7b", max_length=LONGEST_NAME, elem_id="room")
        enter = gr.Button("Enter", elem_id="enter-room")
        nickname = gr.Textbox(label="Your name", placeholder="or none", max_length=LONGEST_NICKNAME, elem_id="nickname")
        tally = gr.HTML(elem_id="tally", apply_default_css=False)
    with gr.Row(elem_id="rank-halves"):
        with gr.Column(elem_id="rank"):
            agreement = gr.HTML(elem_id="agreement", apply_default_css=False, render=False)
            retrained = gr.HTML(elem_id="retrained", apply_default_css=False, render=False)
            moved = gr.HTML(elem_id="moved", apply_default_css=False, render=False)
            parts = [tally, agreement, retrained, moved, seen]
            notice, controls = rank_half(family, rooms, room, [room, nickname, person], parts)
            agreement.render()
            files(rooms, room, notice, parts)
        with gr.Column(elem_id="room-training"):
            training_half(family, rooms, room, retrained, moved, parts, tabs, comparison)

    def arrive(stored: Any, request: gr.Request) -> list[Any]:
        person = somebody(stored)
        asked = request.query_params.get("room", "")
        try:
            name, shown, said = open_room(asked, person), asked, ""
        except InputError as error:
            name, shown, said = open_room("", person), "", problem(str(error))
        return [person, name, shown, said, *panels(rooms, name)]

    def go(asked: str, person: str) -> list[Any]:
        try:
            name = open_room(asked, person)
        except InputError as error:
            return [SKIP, problem(str(error)), *[SKIP] * len(parts)]
        return [name, "", *panels(rooms, name)]

    def look(room: str, before: Any) -> list[Any]:
        changed = room and stamp(rooms, room) != before
        return panels(rooms, room) if changed else [SKIP] * len(parts)

    blocks.load(arrive, person, [person, room, named, notice, *parts], **QUIET)
    for event in (enter.click, named.submit):
        event(go, [named, person], [room, notice, *parts], **QUIET)
    timer = gr.Timer(SECONDS_BETWEEN_LOOKS, active=False)
    tab.select(lambda: gr.Timer(active=True), None, timer, queue=False, **QUIET)
    timer.tick(look, [room, seen], parts, **QUIET)
    return controls


def rank_half(
    family: LoadedFamily, rooms: Rooms, room: gr.State, who: list[Any], parts: list[Any]
) -> tuple[gr.HTML, Controls]:
    """Asking for answers, and voting on them. Returns where it is said what went wrong, and how to ask."""
    task = gr.State(None)
    cast_last = gr.State(None)
    gr.HTML(ABOUT, apply_default_css=False)
    with gr.Row(elem_id="rank-asking"):
        prompt = gr.Textbox(
            label="Prompt to rank answers to",
            show_label=False,
            container=False,
            placeholder="Type a prompt, or take the next one",
            lines=1,
            max_lines=6,
            elem_id="rank-prompt",
        )
        ask = gr.Button("Ask", elem_id="rank-ask")
        following = gr.Button("Next prompt", variant="primary", elem_id="rank-following")
    with gr.Row(elem_id="rank-next"):
        number = gr.Radio(list(COUNTS), value=3, label="Answers", elem_id="rank-count")
        unsure = gr.Button("Where the reward model is least sure", size="sm", elem_id="rank-unsure")
    notice = gr.HTML(elem_id="rank-notice", apply_default_css=False)
    ballot = gr.HTML(
        None, html_template=BALLOT, js_on_load=script("ranking.js"), apply_default_css=False, elem_id="ballot"
    )
    with gr.Row(elem_id="voting"):
        vote = gr.Button("Vote", variant="primary", interactive=False, elem_id="vote")
        withdraw = gr.Button("Take it back", interactive=False, elem_id="withdraw")
    verdict = gr.HTML(elem_id="rank-verdict", apply_default_css=False)

    offers, votes = Offers(family, rooms), Votes(family, rooms, len(parts))
    asked = [task, prompt, ballot, notice, vote, withdraw, verdict]
    writing: dict[str, Any] = {"fn": lambda: "<p>SFT is writing.</p>", "inputs": None, "outputs": notice, **QUIET}
    asking: dict[str, Any] = {"fn": offers.to, "inputs": [prompt, number, *who], "outputs": asked, **HEAVY}
    for event in (ask.click, prompt.submit):
        event(queue=False, **writing).then(**asking)
    following.click(queue=False, **writing).then(offers.to_the_next, [number, *who], asked, **HEAVY)
    unsure.click(queue=False, **writing).then(offers.where_unsure, [number, *who], asked, **HEAVY)
    vote.click(votes.cast, [task, ballot, *who], [ballot, notice, verdict, cast_last, vote, withdraw, *parts], **QUIET)
    undone = [ballot, notice, verdict, vote, withdraw, *parts]
    withdraw.click(votes.take_back, [cast_last, task, ballot, room], undone, **QUIET)
    return notice, Controls({"prompt": prompt}, asking)


class Offers:
    """Answers of SFT to be ranked. Each call gives the task, its prompt, a ballot, and what stands around them."""

    def __init__(self, family: LoadedFamily, rooms: Rooms) -> None:
        self.family = family
        self.rooms = rooms
        self.numbers = count(1)
        self.kinds = {preset.prompt: preset.category for preset in presets()}

    def to(self, prompt: str, number: int, room: str, nickname: str, person: str) -> tuple[Any, ...]:
        """Answers to a prompt: the same for the whole room, others for who has voted on it already."""
        name = annotator(nickname, person)
        votes = sum(vote.prompt == prompt and vote.annotator == name for vote in self.rooms.labels.of(room))
        try:
            self.family.admit(prompt, number)
            return self.offer(prompt, candidates(self.family.local["sft"], prompt, number, self.decoding(votes)))
        except InputError as error:
            return self.failed(error)

    def to_the_next(self, number: int, room: str, nickname: str, person: str) -> tuple[Any, ...]:
        """Answers to the first of the page's prompts on which this person has not voted."""
        left = unranked(list(self.kinds), self.rooms.labels.of(room), annotator(nickname, person))
        if not left:
            return self.failed(InputError("you have ranked all of the page's prompts; type one of your own"))
        return self.to(left[0], number, room, nickname, person)

    def where_unsure(self, number: int, room: str, nickname: str, person: str) -> tuple[Any, ...]:
        """Answers whose rewards lie closest together, among some of the page's prompts."""
        offered = list(self.kinds)
        left = unranked(offered, self.rooms.labels.of(room), annotator(nickname, person)) or offered
        tried = random.sample(left, min(UNSURE_AMONG, len(left)))
        try:
            self.family.limits.admit(number * len(tried))
            reward = self.rooms.reward(room)
            if reward is None:
                raise InputError("this family has no reward model yet")
            return self.offer(*least_sure(self.family.local["sft"], reward, tried, number, self.decoding(0)))
        except InputError as error:
            return self.failed(error)

    def decoding(self, seed: int) -> Decoding:
        return Decoding(min(LONGEST, self.family.context // 2), LIVELY, seed=seed)

    def offer(self, prompt: str, answers: Sequence[Candidate]) -> tuple[Any, ...]:
        """The answers in an order that says nothing."""
        prompt = plain(prompt)  # what is voted on must be written, and read again
        shuffled = tuple(random.sample(answers, len(answers)))
        new = Task(next(self.numbers), prompt, self.kinds.get(prompt, "own"), shuffled)
        return new, prompt, new.ballot(), "", CAN, CANNOT, ""

    def failed(self, error: InputError) -> tuple[Any, ...]:
        return None, SKIP, None, problem(str(error)), CANNOT, CANNOT, ""


@dataclass(frozen=True)
class Votes:
    """Casting a vote and taking it back. What the `parts` of the room show comes last in each result."""

    family: LoadedFamily
    rooms: Rooms
    parts: int

    def cast(self, task: Task | None, marked: Any, room: str, nickname: str, person: str) -> tuple[Any, ...]:
        try:
            self.family.limits.admit()
            label = label_of(task, marked, room, annotator(nickname, person), self.family.name)
        except InputError as error:
            return SKIP, problem(str(error)), SKIP, SKIP, SKIP, SKIP, *[SKIP] * self.parts
        assert task
        self.rooms.vote(label)
        rewards, said = None, ""
        if reward := self.rooms.reward(room):
            mine = [vote for vote in self.rooms.labels.of(room) if vote.annotator == label.annotator]
            known = rewards_of(reward, mine)
            rewards, said = [known[exchange] for exchange in task.exchanges], agreement_line(known, label, mine)
        shown = task.ballot() | marked | {"cast": True, "rewards": rewards}
        return shown, "", said, label, CANNOT, CAN, *panels(self.rooms, room)

    def take_back(self, label: Label, task: Task | None, marked: Any, room: str) -> list[Any]:
        self.rooms.withdraw(label)
        shown = task.ballot() | marked | {"cast": False, "rewards": None} if task and marked else SKIP
        said = "<p>Taken back: it counts no more.</p>"
        return [shown, said, "", CAN if task and marked else CANNOT, CANNOT, *panels(self.rooms, room)]


def label_of(task: Task | None, marked: Any, room: str, annotator: str, family: str) -> Label:
    """A vote as it is kept. Raises InputError for a ballot that is none, or is cast already."""
    if task is None or not isinstance(marked, dict):
        raise InputError("ask for answers first")
    if marked.get("cast"):
        raise InputError("this vote is cast; ask for the next answers")
    try:
        ballot = Ballot.model_validate({name: marked.get(name) for name in Ballot.model_fields})
    except ValidationError as error:
        raise InputError("this is no order of the answers; ask for them again") from error
    places = list(range(len(task.answers)))
    if marked.get("task") != task.number or sorted(ballot.order) != places or len(ballot.tied) != len(places):
        raise InputError("this is no order of the answers; ask for them again")
    return Label(
        id=task.prompt[:200],
        prompt=task.prompt,
        kind=task.kind,
        answers=[
            RankedAnswer(text=answer.text, stopped=answer.stopped, rank=rank, seed=answer.seed)
            for answer, rank in zip(task.answers, ballot.ranks(), strict=True)
        ],
        annotator=annotator,
        split=split_of(task.prompt),
        room=room,
        time=now(),
        family=family,
        criteria=ballot.criteria(),
        all_bad=ballot.bad,
    )


def rewards_of(reward: RewardModel, votes: Sequence[Label]) -> dict[tuple[str, str], float]:
    """The rewards of all answers that were voted on, by (prompt, answer)."""
    exchanges = [(vote.prompt, answer.text) for vote in votes for answer in vote.answers]
    finished = [answer.stopped for vote in votes for answer in vote.answers]
    return dict(zip(exchanges, reward.scores(exchanges, finished), strict=True))


def agreement_line(rewards: Mapping[tuple[str, str], float], label: Label, mine: Sequence[Label]) -> str:
    """How often the reward model and the person agree, on these answers and on all of the person's votes."""
    (right, pairs), (all_right, all_pairs) = agreement_with(rewards, [label]), agreement_with(rewards, mine)
    here = f"It orders {right} of {pairs} pairs as you do." if pairs else "You see no difference between them."
    so_far = f" So far: {all_right} of {all_pairs}, {100 * all_right / all_pairs:.0f} %." if all_pairs else ""
    return f"<p><b>What the reward model thinks stands beside the answers.</b> {here}{so_far}</p>"


def files(rooms: Rooms, room: gr.State, notice: gr.HTML, parts: list[Any]) -> None:
    """The room's votes as files, and votes from files."""
    with gr.Row(elem_id="room-files"):
        export = gr.Button("Export the votes", size="sm", elem_id="export-votes")
        pairs = gr.Button("Export as TRL pairs", size="sm", elem_id="export-pairs")
        bring = gr.UploadButton("Import votes", file_types=[".jsonl"], size="sm", elem_id="import-votes")
    outgoing = gr.HTML(None, html_template="<i></i>", apply_default_css=False)

    def export_votes(room: str) -> dict[str, str]:
        return file(f"votes-{room}", [vote.record() for vote in rooms.labels.of(room)])

    def export_pairs(room: str) -> dict[str, str]:
        return file(f"pairs-{room}", preferences(rooms.labels.of(room), seed=0))

    def import_votes(path: str, room: str) -> list[Any]:
        try:
            rooms.family.limits.admit()
            brought = read_labels(Path(path))
        except InputError as error:
            return [problem(str(error)), *[SKIP] * len(parts)]
        rooms.labels.add([vote.model_copy(update={"room": room}) for vote in brought])
        return [f"<p>{len(brought)} votes imported.</p>", *panels(rooms, room)]

    for button, exported in ((export, export_votes), (pairs, export_pairs)):
        button.click(exported, room, outgoing, **QUIET).then(None, outgoing, None, js=SAVE, **QUIET)
    bring.upload(import_votes, [bring, room], [notice, *parts], **QUIET)


def file(name: str, records: list[dict[str, Any]]) -> dict[str, str]:
    """What the browser saves: votes are somebody's, so no copy stays here."""
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
    return {"name": f"{name}.jsonl", "text": "".join(lines)}
