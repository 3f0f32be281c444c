"""All columns of a request from one allocation of a GPU, on a Space where one is lent for the time of a call."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from threading import Lock

from pipeline.inference.decoding import Decoding
from pipeline.inference.models import Answer

# The answers of several stages as they grow, and None after the last of a stage.
Source = Generator[tuple[str, Answer | None], None, None]
# Begins one: for a prompt, with or without the chat format for base.
Writer = Callable[[str, Decoding, bool], Source]


class Allocation:
    """One source of answers for several columns, each of which reads its own in a thread of its own.

    Nothing is asked of the source before the first column reads. It is closed when every column has read all its
    answers, or left.
    """

    def __init__(self, source: Source, stages: Iterable[str]) -> None:
        self.source = source
        self.lock = Lock()
        self.fetched: dict[str, deque[Answer | Exception | None]] = {stage: deque() for stage in stages}

    def read(self, stage: str) -> Generator[Answer, None, None]:
        """One stage's answer as it grows, once. Raises what the source raised, in every column."""
        try:
            while (answer := self.next(stage)) is not None:
                yield answer
        finally:
            with self.lock:
                del self.fetched[stage]
                if not self.fetched:
                    self.source.close()

    def next(self, stage: str) -> Answer | None:
        """Whoever needs more fetches for all."""
        with self.lock:
            while not self.fetched[stage]:
                self.fetch()
            answer = self.fetched[stage].popleft()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def fetch(self) -> None:
        try:
            stage, answer = next(self.source)
        except Exception as error:
            for answers in self.fetched.values():
                answers.append(error)
            return
        if stage in self.fetched:
            self.fetched[stage].append(answer)
