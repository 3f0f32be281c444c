"""How much one person, one address and all together may ask, and how long an answer may take.

A page on the open internet must answer a class that presses Send at once, and outlast a script that never stops.
"""

import math
import os
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import TypeVar

from gradio.context import LocalContext
from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from pipeline.errors import InputError

Step = TypeVar("Step")

# Environment variables, what stands in for one that is not set, and whose answers it counts. Thirty people may share
# an address. A score, a vote and a token's reading count as an answer, too.
RATES = {
    "STAGEWISE_PER_PERSON": ("300/minute", "you"),
    "STAGEWISE_PER_ADDRESS": ("3000/minute", "all at your address"),
    "STAGEWISE_IN_ALL": ("6000/minute", "all visitors together"),
}
TRAINING = 30  # answers that a training run counts as
LONGEST_SECONDS = 300.0  # from asking to the last token


class Limits:
    """The count of this minute's answers. Raises InputError for a rate in the environment that is none."""

    def __init__(self) -> None:
        self.limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self.rates = {name: rate(name, usual) for name, (usual, _) in RATES.items()}

    def admit(self, answers: int = 1) -> None:
        """Count what the person who is being answered asks for. Raises InputError when that is too much.

        Work that nobody at the page or the API asked for is not counted.
        """
        request = LocalContext.request.get()
        if request is None or request.client is None:
            return
        address = request.client.host
        # Who has no session of the page shares one with all such programs at the address.
        persons = (f"{address} {request.session_hash or ''}", address, "everybody")
        for (name, item), person in zip(self.rates.items(), persons, strict=True):
            if not self.limiter.hit(item, name, person, cost=min(answers, item.amount)):
                wait = math.ceil(self.limiter.get_window_stats(item, name, person).reset_time - time.time())
                raise InputError(
                    f"too much at once: {RATES[name][1]} may ask for {item.amount} answers in "
                    f"{item.get_expiry()} seconds; try again in {max(1, wait)} seconds"
                )


def rate(name: str, usual: str) -> RateLimitItem:
    """The rate that an environment variable gives, such as 300/minute."""
    written = os.environ.get(name, usual)
    try:
        return parse(written)
    except ValueError as error:
        raise InputError(f"{name} is {written!r:.60}; write a rate such as {usual}") from error


def in_time(steps: Iterator[Step]) -> Generator[Step, None, None]:
    """The same steps. Raises InputError, and ends them, once they have taken too long."""
    end = time.monotonic() + LONGEST_SECONDS
    with closing(steps) as answering:  # type: ignore[type-var]
        for step in answering:
            if time.monotonic() > end:
                raise InputError(f"this took longer than {LONGEST_SECONDS:.0f} seconds; ask for less, or later")
            yield step
