"""A hundred people who ask without a pause: `python -m tests.bench.load --family checkpoints/tiny`.

Each sends the next prompt as soon as the last one is answered; every fifth closes the page in the middle of every
third answer and comes back. Nothing but an honest "too much" may come in place of an answer, no prompt may get another
one's answer, the memory must stay as it is, and nobody may be served much less than the others.
"""

import argparse
import asyncio
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.recipe import REPOSITORY
from tests.bench.figures import Measured, table
from tests.bench.page import MARK, Server, mixed, served
from tests.bench.person import Comparison, Person

HONEST = ("too much at once", "queue is full")  # what the page may say instead of an answer
LEAVES = 5  # every so many people close the page now and then


@dataclass
class Told:
    """What all of them saw."""

    finished: list[list[float]] = field(default_factory=list)  # for each person, the seconds of each comparison
    incomplete: int = 0
    mixed: int = 0
    left: int = 0
    refused: int = 0
    failed: list[str] = field(default_factory=list)
    sizes: list[float] = field(default_factory=list)


async def one_of_many(address: str, number: int, end: float, told: Told) -> None:
    """Ask until the end, and leave now and then if one is such a person."""
    seconds: list[float] = []
    told.finished.append(seconds)
    asked = 0
    while time.monotonic() < end:
        async with Person(address) as person:
            while time.monotonic() < end:
                asked += 1
                prompt = MARK.format(f"{number}-{asked}")
                try:
                    if number % LEAVES == 0 and asked % 3 == 0:
                        await leaves(person, prompt)
                        told.left += 1
                        break
                    run = await person.compare(prompt)
                except Exception as error:  # whatever it is, it is counted
                    if any(words in str(error) for words in HONEST):
                        told.refused += 1
                    else:
                        told.failed.append(repr(error))
                    break
                seconds.append(run.seconds)
                told.mixed += mixed(run, prompt)
                told.incomplete += not run.complete


async def leaves(person: Person, prompt: str) -> None:
    """Press Send, and close the page when something is written."""
    asking = asyncio.create_task(person.compare(prompt, run=(seen := Comparison())))
    while not seen.first and not asking.done():
        await asyncio.sleep(0.05)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


async def crowd(address: str, server: Server, people: int, seconds: float) -> Told:
    """All of them at once; the memory is looked at twenty times."""
    told = Told()
    end = time.monotonic() + seconds
    async with asyncio.TaskGroup() as group:
        for number in range(people):
            group.create_task(one_of_many(address, number, end, told))
        while time.monotonic() < end:
            told.sizes.append(server.resident)
            await asyncio.sleep(seconds / 20)
    told.sizes.append(server.resident)
    return told


async def after_leaving(address: str, server: Server) -> float:
    """Processor seconds of the second that begins one second after the only visitor has left a long answer."""
    person = await Person(address).opened()
    await person.compare(MARK.format("who stays"))
    await leaves(person, MARK.format("who leaves"))
    await person.close()
    await asyncio.sleep(1)
    before = server.processor_seconds
    await asyncio.sleep(1)
    return server.processor_seconds - before


def measure(family: Path, people: int = 100, minutes: float = 10) -> list[Measured]:
    with served(str(family)) as (address, server, _):
        idle = asyncio.run(after_leaving(address, server))
        told = asyncio.run(crowd(address, server, people, 60 * minutes))
    for error in sorted(set(told.failed)):
        print(f"failed {told.failed.count(error)} times: {error:.300}")
    counts = [len(seconds) for number, seconds in enumerate(told.finished) if number % LEAVES]
    times = [each for seconds in told.finished for each in seconds]
    middle = len(told.sizes) // 2
    return [
        Measured("processor used a second after the only visitor left", idle, "s", at_most=0.1),
        Measured("people", people),
        Measured("minutes", minutes),
        Measured("comparisons answered", len(times)),
        Measured("comparisons left in the middle", told.left),
        Measured("refused with a reason", told.refused),
        Measured("failed", len(told.failed), at_most=0),
        Measured("without all answers", told.incomplete, at_most=0),
        Measured("with another's prompt", told.mixed, at_most=0),
        Measured("median time", statistics.median(times), "s"),
        Measured("longest time", max(times), "s"),
        Measured("fewest / most comparisons of one person", min(counts) / max(counts), at_least=0.7),
        Measured("memory at the end / in the middle", told.sizes[-1] / told.sizes[middle], at_most=1.05),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Let a crowd ask.")
    parser.add_argument(
        "--family", type=Path, default=REPOSITORY / "checkpoints" / "tiny", help="folder of checkpoints"
    )
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=10)
    options = parser.parse_args()
    print(table("A crowd", measure(options.family, options.people, options.minutes)))


if __name__ == "__main__":
    main()
