"""One model answers several people at once: their rows share each step, and come and go between steps.

Known as continuous batching (Yu et al. 2022, "Orca"). In small models a step is mostly overhead and reading
of weights, so that twenty rows take little longer than one. A row's tokens are those that `decode` gives
for the same prompt and settings, up to floating-point rounding.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

from pipeline.inference.decoding import Decoding, choose, left_padded, next_logits, uniform

if TYPE_CHECKING:
    import torch

    from pipeline.inference.cache import PlacesCache

ROWS = 24  # written at the same time; whoever comes later waits
SECONDS_BETWEEN_WORDS = 0.25  # to those who wait, so that they can leave, too


@dataclass(frozen=True)
class Waiting:
    """What a row hears every now and then before its turn: its place in the queue, 1 for the next."""

    place: int


# Compared by identity: two people may ask the same.
@dataclass(eq=False)
class Row:
    """One prompt and what was written after it. `news` brings its reader each token, and None at the end."""

    prompt: list[int]
    decoding: Decoding
    stop: list[int]
    room: int
    draws: list[float]
    written: list[int] = field(default_factory=list)
    told: float = 0.0
    closed: bool = False
    news: SimpleQueue[int | Waiting | Exception | None] = field(default_factory=SimpleQueue)

    def wait(self, place: int) -> None:
        now = time.monotonic()
        if now - self.told >= SECONDS_BETWEEN_WORDS:
            self.told = now
            self.news.put(Waiting(place))

    def write(self, token: int) -> None:
        self.written.append(token)
        self.news.put(token)
        if token in self.stop or len(self.written) == self.room:
            self.close()

    def close(self, error: Exception | None = None) -> None:
        self.closed = True
        self.news.put(error)


class Together:
    """Decoding of one model for any number of threads. A thread of its own steps all rows while there are any.

    `rows` are written at the same time. For models that `can_share` says yes to, in evaluation mode.
    """

    def __init__(self, model: Any, rows: int = ROWS) -> None:
        from pipeline.inference.llama import LlamaStep, is_plain_llama

        self.model = model
        self.quick = LlamaStep(model) if is_plain_llama(model) else None
        self.rows = rows
        self.lock = Lock()
        self.waiting: list[Row] = []
        self.working = False

    def stream(self, prompt: list[int], decoding: Decoding, stop: list[int]) -> Iterator[int | Waiting]:
        """The tokens after a prompt as they come, a token of `stop` too; before them, each place in the queue.

        Closing the iterator takes the row out before the next step. Raises ValueError for a prompt without
        tokens, and what the model raised in a step or while it read the prompts of rows that came together.
        """
        if not prompt:
            raise ValueError("a prompt needs at least one token")
        context = self.model.config.get_text_config().max_position_embeddings
        room = min(decoding.max_new_tokens, context - len(prompt))
        if room <= 0:
            return
        draws = uniform(decoding.seed, prompt, min(decoding.max_new_tokens, context)).tolist()
        row = Row(prompt, decoding, stop, room, draws)
        self.join(row)
        try:
            while (news := row.news.get()) is not None:
                if isinstance(news, Exception):
                    raise news
                yield news
        finally:
            row.closed = True

    def join(self, row: Row) -> None:
        with self.lock:
            self.waiting.append(row)
            if self.working:
                return
            self.working = True
        Thread(target=self.work, name="decoding", daemon=True).start()

    def work(self) -> None:
        """Step until nobody is left. The cache lives as long: a page that nobody asks holds none."""
        import torch

        from pipeline.inference.cache import PlacesCache

        cache = PlacesCache(self.model.config)
        going: list[Row] = []  # a row's index is its place in the cache
        with torch.inference_mode():
            while self.somebody_left(going, cache):
                joining = self.admitted(len(going))
                try:
                    if joining:
                        self.begin(joining, going, cache)
                    else:
                        self.step(going, cache)
                except Exception as error:
                    for row in joining or going:
                        row.close(error)

    def somebody_left(self, going: list[Row], cache: "PlacesCache") -> bool:
        """Take out the rows that have ended; False when none is left, so that the next to come starts a thread."""
        for place in reversed(range(len(going))):
            if going[place].closed:
                last = going.pop()
                if place < len(going):
                    going[place] = last
                    cache.move(len(going), place)
        with self.lock:
            self.waiting = [row for row in self.waiting if not row.closed]
            self.working = bool(going or self.waiting)
            return self.working

    def admitted(self, going: int) -> list[Row]:
        """The rows whose turn has come; the others hear how many are before them."""
        with self.lock:
            places = self.rows - going
            joining, self.waiting = self.waiting[:places], self.waiting[places:]
            for place, row in enumerate(self.waiting, 1):
                row.wait(place)
        return joining

    def begin(self, joining: list[Row], going: list[Row], cache: "PlacesCache") -> None:
        """Read the prompts of new rows, keep their keys and values, and write the first token of each."""
        from pipeline.inference.cache import roomy_cache

        prompts = [row.prompt for row in joining]
        tokens, mask, positions = left_padded(prompts, self.model.device)
        read = roomy_cache(self.model.config)
        logits = next_logits(self.model, tokens, mask, positions, read)
        for row, prompt in enumerate(prompts):
            cache.take(len(going) + row, read, row, len(prompt))
        write(joining, logits)
        going += joining

    def step(self, going: list[Row], cache: "PlacesCache") -> None:
        """Write one more token of every row."""
        import torch

        device = self.model.device
        tokens = torch.tensor([row.written[-1] for row in going], device=device)
        # The newest token is not in the cache yet.
        lengths = torch.tensor([len(row.prompt) + len(row.written) - 1 for row in going], device=device)
        if self.quick:
            write(going, self.quick(tokens, lengths, cache))
            return
        mask = cache.opened(lengths, self.model.dtype)
        write(going, next_logits(self.model, tokens[:, None], mask, lengths[:, None], cache))


def write(rows: list[Row], logits: "torch.Tensor") -> None:
    """Choose and write the next token of each row from its logits [rows, vocabulary]."""
    import torch

    alike: dict[tuple[float, float], list[int]] = {}
    for place, row in enumerate(rows):
        alike.setdefault((row.decoding.temperature, row.decoding.top_p), []).append(place)
    for places in alike.values():
        draws = torch.tensor([rows[place].draws[len(rows[place].written)] for place in places], dtype=torch.float64)
        tokens = choose(logits[places], rows[places[0]].decoding, draws.to(logits.device))
        for place, token in zip(places, tokens.tolist(), strict=True):
            rows[place].write(token)


def can_share(model: Any) -> bool:
    """Whether rows of different lengths can share the model's cache: every layer attends to all that was before."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)
