"""What stands behind the page: the models of one family, loaded once, and how one column fills.

Nothing here knows gradio: a column is a sequence of views, whoever draws them.
"""

import logging
import re
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Lock
from typing import Literal

from pipeline.checkpoint import Family, open_family
from pipeline.errors import InputError
from pipeline.inference.decoding import Decoding
from pipeline.inference.models import LONGEST_PROMPT, RewardModel, StageModel, context_length, load_reward, load_stage
from pipeline.publish.fetch import local
from ui.limits import Limits, in_time

COLUMNS = ("base", "sft", "rlhf")
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

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """One press of Send; `number` tells two presses with the same content apart.

    `chat_format` shows base the prompt as the others see it. `order` says which stage each column shows;
    while a class is `guessing`, names and rewards are hidden until `revealed`. `halted` ends all columns,
    `replaced` says that they show something newer now, `latest` keeps what each stage has shown last.
    """

    number: int
    prompt: str
    decoding: Decoding
    chat_format: bool = False
    order: tuple[str, ...] = COLUMNS
    guessing: bool = False
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
    `place` is the place in the queue, 1 for the next, while others are answered first.
    """

    stage: str
    state: State
    prompt: str = ""
    limit: int = Decoding.max_new_tokens
    chat_format: bool = False
    text: str = ""
    tokens: int = 0
    seconds: float = 0.0
    reward: float | None = None
    error: str = ""
    place: int = 0


class LoadedFamily:
    """The answering stages that are trained so far, and the reward model if there is one."""

    def __init__(
        self,
        files: Family,
        models: dict[str, StageModel],
        reward: RewardModel | None,
        scale: tuple[float, float],
        limits: Limits | None = None,
    ) -> None:
        self.files = files
        self.name = files.name
        self.models = models
        self.reward = reward
        self.scale = scale
        self.limits = limits or Limits()
        self.filling_now = 0
        self.lock = Lock()

    @property
    def people_at_once(self) -> int:
        """Answers that one column takes at the same time: models that share their steps tell the queue themselves."""
        return MOST_PEOPLE if all(model.together for model in self.models.values()) else 2

    @property
    def context(self) -> int:
        """Tokens that prompt and answer may have together."""
        return context_length(self.models["base"].model)

    @property
    def parameters(self) -> int:
        return sum(weights.numel() for weights in self.models["base"].model.parameters())

    @property
    def prompt_limit(self) -> int:
        """Characters of a prompt: at some three a token, it leaves the answer a third of the context."""
        return min(LONGEST_PROMPT, 2 * self.context)

    def check(self, prompt: str) -> None:
        """Raise InputError if no column could answer the prompt."""
        if len(text("prompt", prompt)) > self.prompt_limit:
            raise InputError(f"the prompt has {len(prompt):,} characters; at most {self.prompt_limit} fit, shorten it")
        for model in self.models.values():
            model.encode(prompt)

    def admit(self, prompt: str, answers: int) -> None:
        """Check a prompt and count the answers to it. Raises InputError as `check` does, or if they are too many."""
        self.check(prompt)
        self.limits.admit(answers)

    def beside(self, stage: str, model: StageModel) -> "LoadedFamily":
        """The same family with one more model, which answers under the name of `stage`."""
        return LoadedFamily(self.files, {**self.models, stage: model}, self.reward, self.scale, self.limits)

    def first_view(self, stage: str) -> View:
        return View(stage, "idle" if stage in self.models else "untrained")

    def views(self, stage: str, request: Request) -> Generator[View, None, None]:
        """One column from empty to scored. What goes wrong is shown in it: the others must not suffer."""
        first = latest = View(stage, "waiting", request.prompt, request.decoding.max_new_tokens, request.chat_format)
        yield first
        try:
            for latest in self.filling(first, request):
                yield latest
        except InputError as error:
            yield replace(latest, state="failed", error=told(error))
        except Exception as error:
            logger.exception("the %s column failed", stage)
            yield replace(latest, state="failed", error=f"{type(error).__name__}: {told(error)}")

    def filling(self, view: View, request: Request) -> Iterator[View]:
        start = time.monotonic()
        shown = 0.0
        stopped = False
        model = replace(self.models[view.stage], chat_format=request.chat_format)
        with self.counted():
            # Whoever leaves this loop early closes the stream, and with it the decoding.
            for answer in in_time(model.stream(request.prompt, request.decoding)):
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


def load(path: str | Path) -> LoadedFamily:
    """Load every stage the page shows. Raises InputError for a missing or damaged family."""
    family = open_family(local(path))
    models = {stage: load_stage(family.checkpoint(stage)).shared() for stage in COLUMNS if family.has(stage)}
    if not family.has("reward"):
        return LoadedFamily(family, models, None, USUAL_SCALE)
    checkpoint = family.checkpoint("reward")
    low, high = checkpoint.figures.get("scale", USUAL_SCALE)
    return LoadedFamily(family, models, load_reward(checkpoint), (low, high))
