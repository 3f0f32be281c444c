"""What stands behind the page: the models of one family, loaded once, and how one column fills.

Nothing here knows gradio: a column is a sequence of views, whoever draws them.
"""

import logging
import re
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Lock
from typing import Literal, TypeAlias

from pipeline.checkpoint import Family
from pipeline.errors import InputError
from pipeline.inference.decoding import Decoding
from pipeline.inference.models import (
    LONGEST_PROMPT,
    Answer,
    RewardModel,
    StageModel,
    load_reward,
    load_stage,
    side_by_side,
)
from pipeline.inference.served import ServedStage
from pipeline.inference.stages import answering_models, reward_model
from pipeline.published import PublishedFamily, find_family
from ui.allocation import Allocation, Source, Writer
from ui.limits import Limits, in_time

# The columns of a family that was trained here; a published one has those that it names.
COLUMNS = ("base", "sft", "rlhf")
NAMES = {"base": "base", "sft": "SFT", "rlhf": "RLHF"}
# The policy that a room has moved: a fourth column for those who want it.
OWN = "own"
# Low: models this small know little, and go astray a few steps away from the likeliest token.
USUAL_TEMPERATURE = 0.3
# Used for a reward checkpoint that does not name its own scale.
USUAL_SCALE = (-4.0, 4.0)
# Faster than anyone reads, slow enough to leave the processor to the models; longer when more columns fill.
SECONDS_BETWEEN_VIEWS = 0.05
MOST_PEOPLE = 64
FOLDERS = re.compile(r"(?<![\w./:])/(?:[^\s/'\":;,]+/)+")
NO_REWARD = "the family has no reward model, so answers get no rewards"

Stage: TypeAlias = StageModel | ServedStage

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """One press of Send; `number` tells two presses with the same content apart.

    `chat_format` shows base the prompt as the others see it. `order` says which stage each column shows;
    while a class is `guessing`, names and rewards are hidden until `revealed`. `halted` ends all columns,
    `replaced` says that they show something newer now, `latest` keeps what each stage has shown last.
    The columns read from the `allocation` if there is one; else each model answers by itself.
    """

    number: int
    prompt: str
    decoding: Decoding
    chat_format: bool = False
    order: tuple[str, ...] = COLUMNS
    guessing: bool = False
    allocation: Allocation | None = field(default=None, compare=False)
    halted: Event = field(default_factory=Event, compare=False)
    replaced: Event = field(default_factory=Event, compare=False)
    revealed: Event = field(default_factory=Event, compare=False)
    latest: "dict[str, View]" = field(default_factory=dict, compare=False)

    @property
    def hidden(self) -> bool:
        return self.guessing and not self.revealed.is_set()

    def give_way(self) -> None:
        """End, and show nothing more: something newer takes the columns."""
        self.replaced.set()
        self.halted.set()


State = Literal["untrained", "idle", "waiting", "writing", "scoring", "stopped", "cut", "halted", "failed"]


@dataclass(frozen=True)
class View:
    """What one column shows at one moment.

    `stopped` the model ended its answer by itself, `cut` it reached the limit, `halted` a person
    stopped it. `seconds` counts from the start of the answer, `reward` is unset until it is known,
    `place` is the place in the queue, 1 for the next, while others are answered first. `given` is what the
    model goes on from if that is not the bare prompt; `source` says who published it, and `about` what it learned.
    """

    stage: str
    state: State
    prompt: str = ""
    limit: int = Decoding.max_new_tokens
    given: str = ""
    text: str = ""
    tokens: int = 0
    seconds: float = 0.0
    reward: float | None = None
    error: str = ""
    place: int = 0
    source: str = ""
    about: str = ""


class LoadedFamily:
    """The answering stages that there are so far, and the reward model if there is one.

    `notes` are lines on what a published family lacks.
    """

    def __init__(
        self,
        origin: Family | PublishedFamily,
        models: dict[str, Stage],
        reward: RewardModel | None,
        scale: tuple[float, float],
        notes: tuple[str, ...] = (),
        limits: Limits | None = None,
    ) -> None:
        self.origin = origin
        self.name = origin.name
        self.models = models
        self.reward = reward
        self.scale = scale
        self.notes = notes
        self.columns = COLUMNS if isinstance(origin, Family) else tuple(models)
        self.one_vocabulary = isinstance(origin, Family) or same_vocabulary(list(self.local.values()))
        self.writer: Writer | None = None
        self.limits = limits or Limits()
        self.filling_now = 0
        self.lock = Lock()

    @property
    def published(self) -> PublishedFamily | None:
        """What says where its models are, if others trained them."""
        return self.origin if isinstance(self.origin, PublishedFamily) else None

    @property
    def files(self) -> Family:
        """The checkpoints of a family that was trained here. No other has any."""
        assert isinstance(self.origin, Family)
        return self.origin

    @property
    def local(self) -> dict[str, StageModel]:
        """The stages whose models are in this process, and not on a server."""
        return {stage: model for stage, model in self.models.items() if isinstance(model, StageModel)}

    @property
    def readers(self) -> dict[str, StageModel]:
        """The stages that can read each other's answers token by token."""
        return self.local if self.one_vocabulary else {}

    @property
    def people_at_once(self) -> int:
        """Answers that one column takes at the same time: models that share their steps tell the queue themselves."""
        return MOST_PEOPLE if all(model.together for model in self.local.values()) else 2

    @property
    def context(self) -> int:
        """Tokens that prompt and answer may have together."""
        return min(model.context for model in self.models.values())

    @property
    def parameters(self) -> int:
        """Of the first of its models; 0 if all of them are on servers."""
        return next((model.model.num_parameters() for model in self.local.values()), 0)

    @property
    def prompt_limit(self) -> int:
        """Characters of a prompt: at some three a token, it leaves the answer a third of the context."""
        return min(LONGEST_PROMPT, 2 * self.context)

    def check(self, prompt: str) -> None:
        """Raise InputError if no column could answer the prompt."""
        if len(text("prompt", prompt)) > self.prompt_limit:
            raise InputError(f"the prompt has {len(prompt):,} characters; at most {self.prompt_limit} fit, shorten it")
        for model in self.models.values():
            model.check(prompt)

    def lend(self, gpu: Callable[[Writer], Writer]) -> None:
        """Have columns written together under `gpu`, such as `spaces.GPU`, by copies of the models on the GPU.

        What it wraps may run in another process: only texts and numbers go in and come out. Everything else that
        the page does stays on the processor.
        """
        models = {stage: model.on_gpu() for stage, model in self.local.items()}

        def write(prompt: str, decoding: Decoding, chat_format: bool) -> Source:
            asked = {stage: replace(model, chat_format=chat_format) for stage, model in models.items()}
            yield from side_by_side(asked, prompt, decoding)

        self.writer = gpu(write)

    def allocation(self, prompt: str, decoding: Decoding, chat_format: bool) -> Allocation | None:
        """For a request that every model in this process answers; None where no GPU is lent."""
        return Allocation(self.writer(prompt, decoding, chat_format), self.local) if self.writer else None

    def answers(self, stage: str, model: Stage, request: Request) -> Iterator[Answer]:
        if request.allocation and stage in self.local and stage != OWN:
            return request.allocation.read(stage)
        return model.stream(request.prompt, request.decoding)

    def admit(self, prompt: str, answers: int) -> None:
        """Check a prompt and count the answers to it. Raises InputError as `check` does, or if they are too many."""
        self.check(prompt)
        self.limits.admit(answers)

    def beside(self, stage: str, model: StageModel) -> "LoadedFamily":
        """The same family with one more model, which answers under the name of `stage`."""
        return LoadedFamily(
            self.origin, {**self.models, stage: model}, self.reward, self.scale, self.notes, self.limits
        )

    def first_view(self, stage: str) -> View:
        return self.introduced(View(stage, "idle" if stage in self.models else "untrained"))

    def introduced(self, view: View) -> View:
        """The view with what a published family says of the stage."""
        if self.published is None:
            return view
        place = self.published.place(view.stage)
        return replace(view, source=place.source, about=place.about)

    def views(self, stage: str, request: Request) -> Generator[View, None, None]:
        """One column from empty to scored. What goes wrong is shown in it: the others must not suffer."""
        latest = self.introduced(View(stage, "waiting", request.prompt, request.decoding.max_new_tokens))
        try:
            model = replace(self.models[stage], chat_format=request.chat_format)
            first = latest = replace(latest, given=model.given(request.prompt) if stage == "base" else "")
            yield first
            for latest in self.filling(first, model, request):
                yield latest
        except InputError as error:
            yield replace(latest, state="failed", error=told(error))
        except Exception as error:
            logger.exception("the %s column failed", stage)
            yield replace(latest, state="failed", error=f"{type(error).__name__}: {told(error)}")

    def filling(self, view: View, model: Stage, request: Request) -> Iterator[View]:
        start = time.monotonic()
        shown = 0.0
        stopped = False
        with self.counted():
            # Whoever leaves this loop early closes the stream, and with it the decoding.
            for answer in in_time(self.answers(view.stage, model, request)):
                now = time.monotonic()
                if answer.place:
                    start = now
                    view = replace(view, place=answer.place)
                else:
                    text, tokens, seconds = answer.text, answer.tokens, now - start
                    view = replace(view, state="writing", text=text, tokens=tokens, seconds=seconds, place=0)
                stopped = answer.stopped
                if request.halted.is_set():
                    yield replace(view, state="halted", place=0)
                    return
                if now - shown >= SECONDS_BETWEEN_VIEWS * max(1, self.filling_now / len(COLUMNS)):
                    shown = now
                    yield view
        ended: State = "stopped" if stopped else "cut"
        if self.reward is None:
            yield replace(view, state=ended)
            return
        yield replace(view, state="scoring")
        yield replace(view, state=ended, reward=self.reward.scores([(request.prompt, view.text)], [stopped])[0])

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count one more column that is filling now: the more there are, the less often each is drawn."""
        with self.lock:
            self.filling_now += 1
        try:
            yield
        finally:
            with self.lock:
                self.filling_now -= 1


def told(error: object) -> str:
    """What a stranger hears of an error: its words in one line, without the folders of this machine."""
    return FOLDERS.sub("", " ".join(str(error).split()))


def text(name: str, value: object) -> str:
    """A text from outside, where anything may come. Raises InputError for what is none."""
    if not isinstance(value, str):
        raise InputError(f"{name} is {value!r:.60}; it must be a text")
    return value


def same_vocabulary(models: list[StageModel]) -> bool:
    """Whether a number is the same token to all models; one may know tokens that another only has room for."""
    known: dict[int, str] = {}
    for model in models:
        for token, number in model.tokenizer.get_vocab().items():
            if known.setdefault(number, token) != token:
                return False
    return all(max(known) < model.model.get_input_embeddings().num_embeddings for model in models)


def load(name: str | Path) -> LoadedFamily:
    """Load every stage the page shows. Raises InputError for a family that is missing, damaged, or out of reach."""
    family = find_family(name)
    if isinstance(family, PublishedFamily):
        return load_published_family(family)
    models: dict[str, Stage] = {
        stage: load_stage(family.checkpoint(stage)).shared() for stage in COLUMNS if family.has(stage)
    }
    if not family.has("reward"):
        return LoadedFamily(family, models, None, USUAL_SCALE)
    checkpoint = family.checkpoint("reward")
    low, high = checkpoint.figures.get("scale", USUAL_SCALE)
    return LoadedFamily(family, models, load_reward(checkpoint), (low, high))


def load_published_family(family: PublishedFamily) -> LoadedFamily:
    """Load what a family file names, and note what is not there. Raises InputError if nothing answers."""
    notes: list[str] = []
    models = {stage: model.shared() for stage, model in answering_models(family, notes.append)}
    if not models:
        raise InputError(f"the family {family.name} cannot answer: {notes[0]}")
    if missing := [NAMES[stage] for stage in COLUMNS if not family.has(stage)]:
        notes.insert(0, f"the family leaves out {' and '.join(missing)}, and so does the page")
    if not family.has("reward"):
        return LoadedFamily(family, models, None, USUAL_SCALE, (*notes, NO_REWARD))
    low, high = family.place("reward").scale or USUAL_SCALE
    return LoadedFamily(family, models, reward_model(family), (low, high), tuple(notes))
