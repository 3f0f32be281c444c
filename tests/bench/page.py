"""How fast the page is: `python -m tests.bench.page --family checkpoints/tiny`.

Starts `python app.py` as a process of its own and talks to it over HTTP as a browser does. Beside the
figures stand three plain `generate` calls of transformers, timed in the same run. Where other work shares
the processor, seconds say little: compare the processor seconds then, which the server alone has used.
"""

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx

from pipeline.recipe import REPOSITORY
from tests.bench.figures import Measured
from tests.bench.person import Comparison, Person

QUESTION = "What is the capital of France?"
# Names that no answer holds by chance: with them, one person's column is told from another's.
MARK = "Person {} asks what the capital of France is."


@dataclass(frozen=True)
class Server:
    """The process that serves the page, as Linux sees it."""

    pid: int

    @property
    def processor_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def resident(self) -> float:
        """Megabytes of memory."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextmanager
def served(family: str) -> Iterator[tuple[str, Server, float]]:
    """`python app.py` until its page is sent: its address, its process, the seconds that took."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "app.py", "--family", family, "--host", "127.0.0.1", "--port", str(port)]
    start = time.monotonic()
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL) as server:
        try:
            while not answers(address):
                if server.poll() is not None:
                    raise SystemExit("error: the page did not start")
                time.sleep(0.02)
            yield address, Server(server.pid), time.monotonic() - start
        finally:
            server.terminate()


def answers(address: str) -> bool:
    try:
        return httpx.get(address, timeout=30).status_code == 200
    except httpx.TransportError:
        return False


def plain_generate(family: str, rounds: int) -> dict[str, Any]:
    """Three `generate` calls, one after the other, in a process that does nothing else."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from pipeline.chat_format import stop_tokens
    from pipeline.inference.decoding import Decoding
    from ui.answering import COLUMNS, USUAL_TEMPERATURE, StageModel

    torch.set_num_threads(1)
    folders = [Path(family) / stage for stage in COLUMNS]
    tokenizer = AutoTokenizer.from_pretrained(folders[0])
    models = [AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval() for folder in folders]
    prompts = [
        StageModel(stage, model, tokenizer).encode(QUESTION) for stage, model in zip(COLUMNS, models, strict=True)
    ]
    settings: dict[str, Any] = {
        "max_new_tokens": Decoding.max_new_tokens,
        "do_sample": True,
        "temperature": USUAL_TEMPERATURE,
        "eos_token_id": stop_tokens(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
    }
    times: list[list[float]] = []
    processor = []
    for _ in range(rounds + 1):
        times.append([])
        before = time.process_time()
        for model, prompt in zip(models, prompts, strict=True):
            start = time.monotonic()
            model.generate(torch.tensor([prompt]), **settings)
            times[-1].append(time.monotonic() - start)
        processor.append(time.process_time() - before)
    # The first round warms up.
    return {
        "three in sequence, s": statistics.median(map(sum, times[1:])),
        "slowest of them, s": statistics.median(map(max, times[1:])),
        "processor seconds": statistics.median(processor[1:]),
    }


async def one_person(address: str, server: Server, rounds: int) -> dict[str, Any]:
    """One person alone: three columns together, and each of them alone, in turns."""
    async with Person(address) as person:
        await person.compare(QUESTION)
        together: list[Comparison] = []
        alone: list[list[Comparison]] = []
        processor: list[list[float]] = []
        for _ in range(rounds):
            marks = [server.processor_seconds]
            together.append(await person.compare(QUESTION))
            marks.append(server.processor_seconds)
            alone.append([])
            for stage in person.columns:
                alone[-1].append(await person.compare(QUESTION, only=stage))
                marks.append(server.processor_seconds)
            processor.append([later - earlier for earlier, later in pairwise(marks)])
    return {
        "first token of the last column, s": statistics.median(max(run.first.values()) for run in together),
        "first token of the first column, s": statistics.median(min(run.first.values()) for run in together),
        "three answers together, s": statistics.median(run.seconds for run in together),
        "slowest answer alone, s": statistics.median(max(run.seconds for run in runs) for runs in alone),
        "three answers one after the other, s": statistics.median(sum(run.seconds for run in runs) for runs in alone),
        "processor seconds of a comparison": statistics.median(run[0] for run in processor),
        "processor seconds of the slowest alone": statistics.median(max(run[1:]) for run in processor),
        "views of a comparison": statistics.median(run.views for run in together),
    }


async def many(address: str, server: Server, people: int) -> dict[str, Any]:
    """People who all press Send at once, each with a prompt of their own."""
    prompts = [MARK.format(number) for number in range(people)]
    async with asyncio.TaskGroup() as group:
        opened = [group.create_task(Person(address).opened()) for _ in prompts]
    persons = [task.result() for task in opened]
    start, before = time.monotonic(), server.processor_seconds
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(person.compare(prompt)) for person, prompt in zip(persons, prompts, strict=True)]
    runs = [task.result() for task in tasks]
    seconds, processor = time.monotonic() - start, server.processor_seconds - before
    for person in persons:
        await person.close()
    complete = [run for run in runs if run.complete]
    return {
        "people at once": people,
        "with all answers": len(complete),
        "with another's prompt": sum(mixed(run, prompt) for run, prompt in zip(runs, prompts, strict=True)),
        "who saw a place in the queue": sum(bool(run.places) for run in runs),
        "median s": statistics.median(run.seconds for run in runs),
        "slowest s": max(run.seconds for run in runs),
        "median first token of the last column, s": statistics.median(max(run.first.values()) for run in runs),
        "processor seconds": processor,
        "views": sum(run.views for run in runs),
        "tokens/s, all together": sum(run.tokens for run in runs) / seconds,
    }


def mixed(run: Comparison, prompt: str) -> bool:
    return f">{prompt}</span>" not in run.html["base"]


async def memory(address: str, server: Server, comparisons: int, people: int) -> dict[str, Any]:
    """Resident memory of the server, in MB, while people send one comparison after the other."""
    sizes = []
    left = iter(range(comparisons))

    async def ask() -> None:
        async with Person(address) as person:
            for number in left:
                if number % max(1, comparisons // 10) == 0:
                    sizes.append(server.resident)
                    print(f"after {number} comparisons: {sizes[-1]:.0f} MB", file=sys.stderr)
                await person.compare(MARK.format(number))

    async with asyncio.TaskGroup() as group:
        for _ in range(people):
            group.create_task(ask())
    sizes.append(server.resident)
    return {"comparisons": comparisons, "resident MB, at every tenth": [round(size) for size in sizes]}


def figures_of(family: str, rounds: int, people: list[int], comparisons: int) -> dict[str, dict[str, Any]]:
    """All figures, by what they are about."""
    figures: dict[str, dict[str, Any]] = {}
    load = os.getloadavg()[0]
    with served(family) as (address, server, seconds):
        figures["start"] = {"from the command to the page, s": seconds, "processor seconds": server.processor_seconds}
        figures["one person"] = asyncio.run(one_person(address, server, rounds))
        for number in people:
            figures[f"{number} people"] = asyncio.run(many(address, server, number))
        if comparisons:
            figures["memory"] = asyncio.run(memory(address, server, comparisons, 8))
    plain = figures["plain generate"] = plain_generate(family, rounds)
    alone = figures["one person"]
    figures["ratios"] = {
        "together / slowest alone": alone["three answers together, s"] / alone["slowest answer alone, s"],
        "the same in processor seconds": alone["processor seconds of a comparison"]
        / alone["processor seconds of the slowest alone"],
        "together / three generates in sequence": alone["three answers together, s"] / plain["three in sequence, s"],
        "server / three generates, processor seconds": alone["processor seconds of a comparison"]
        / plain["processor seconds"],
    } | {
        f"{number} people / three generates, processor seconds": figures[f"{number} people"]["processor seconds"]
        / plain["processor seconds"]
        for number in people
    }
    figures["load (1 minute), processors"] = {"before": load, "after": os.getloadavg()[0], "processors": os.cpu_count()}
    return figures


def measure(family: Path) -> list[Measured]:
    """The figures that have goals, for one person alone and for twenty at once."""
    figures = figures_of(str(family), rounds=5, people=[20], comparisons=500)
    alone, twenty, ratios = figures["one person"], figures["20 people"], figures["ratios"]
    sizes = figures["memory"]["resident MB, at every tenth"]
    return [
        Measured("from the command to the page", figures["start"]["from the command to the page, s"], "s", at_most=8),
        Measured("first token of the last column", alone["first token of the last column, s"], "s", at_most=0.25),
        Measured("three answers together / slowest alone", ratios["together / slowest alone"], at_most=1.3),
        Measured(
            "three answers together / three generate calls in sequence",
            ratios["together / three generates in sequence"],
            at_most=1,
        ),
        Measured("20 people at once: with all answers", twenty["with all answers"], at_least=20),
        Measured("20 people at once: with another's prompt", twenty["with another's prompt"], at_most=0),
        Measured("20 people at once: median time", twenty["median s"], "s", at_most=10),
        Measured("20 people at once", twenty["tokens/s, all together"], "tokens/s"),
        Measured("memory before 500 comparisons", sizes[0], "MB"),
        Measured("memory after 250", sizes[5], "MB"),
        Measured("memory after 500", sizes[-1], "MB"),
        Measured("memory after 500 / after 250", sizes[-1] / sizes[5], at_most=1.05),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the page.")
    parser.add_argument("--family", default=str(REPOSITORY / "checkpoints" / "tiny"), help="folder of checkpoints")
    parser.add_argument("--rounds", type=int, default=5, help="comparisons of one person alone")
    parser.add_argument("--people", type=int, nargs="*", default=[20], help="how many press Send at once")
    parser.add_argument("--comparisons", type=int, default=500, help="comparisons to watch the memory over; 0: none")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    figures = figures_of(options.family, options.rounds, options.people, options.comparisons)
    for title, rows in figures.items():
        print(title)
        for name, value in rows.items():
            print(f"  {name:50} {value:.2f}" if isinstance(value, float) else f"  {name:50} {value}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
