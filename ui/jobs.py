"""Training for the people at the page: one job at a time, in a process of its own, while the others wait.

A job that goes wrong, or is cancelled, takes nothing with it: what it trains is written whole at its end.
"""

import os
import time
import traceback
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection
from threading import Condition, Thread
from typing import Any, Literal

from pipeline.errors import InputError

State = Literal["waiting", "running", "done", "failed", "cancelled"]
# A function by its full name: only the process that runs it needs the training packages. It takes its arguments and
# then a function that it tells, again and again, how far it has come.
Work = str

MOST_WAITING = 8
SECONDS_TO_LEAVE = 10
LONGEST_SECONDS = 3600.0  # of one job: the others wait for it
# Answering people comes before training.
NICENESS = 5


@dataclass(eq=False)
class Job:
    """One training run of a room. `told` is all that it has told so far, `error` what went wrong."""

    room: str
    kind: str
    work: Work
    arguments: tuple[Any, ...]
    state: State = "waiting"
    told: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""
    process: Any = None

    @property
    def over(self) -> bool:
        return self.state in ("done", "failed", "cancelled")


class Jobs:
    """The queue of all rooms."""

    def __init__(self) -> None:
        self.changed = Condition()
        self.queue: list[Job] = []
        self.newest: dict[tuple[str, str], Job] = {}
        self.running = False

    def start(self, room: str, kind: str, work: Work, *arguments: Any) -> Job:
        """Queue a job. Raises InputError while the room has one that is not over, and when too many wait."""
        with self.changed:
            if any(job.room == room and not job.over for job in self.queue):
                raise InputError("this room is training already; wait for it, or cancel it")
            if len(self.queue) >= MOST_WAITING:
                raise InputError("too many rooms wait to train; try again in a few minutes")
            job = Job(room, kind, work, arguments)
            self.queue.append(job)
            self.newest[room, kind] = job
            if not self.running:
                self.running = True
                Thread(target=self.run_all, name="jobs", daemon=True).start()
        return job

    def of(self, room: str, kind: str) -> Job | None:
        """The newest job of this kind in a room."""
        return self.newest.get((room, kind))

    def place(self, job: Job) -> int:
        """How many jobs come before this one."""
        with self.changed:
            return self.queue.index(job) if job in self.queue else 0

    def cancel(self, job: Job) -> None:
        """End a job wherever it stands; nothing of it stays."""
        with self.changed:
            if job.over:
                return
            job.state = "cancelled"
            if job.process is not None:
                job.process.terminate()
            else:
                self.queue.remove(job)
            self.changed.notify_all()

    def wait(self, job: Job, timeout: float) -> bool:
        """Whether a job is over, at the latest after `timeout` seconds."""
        with self.changed:
            return self.changed.wait_for(lambda: job.over, timeout)

    def run_all(self) -> None:
        while True:
            with self.changed:
                if not self.queue:
                    self.running = False
                    return
                job = self.queue[0]
                job.state = "running"
                ours, theirs = get_context("spawn").Pipe(duplex=False)
                job.process = get_context("spawn").Process(
                    target=perform, args=(theirs, job.work, job.arguments), daemon=True
                )
                job.process.start()
                theirs.close()
            self.follow(job, ours)
            job.process.join(SECONDS_TO_LEAVE)
            # Whoever waits must not wait for a process that has said its last word.
            job.process.kill()
            job.process.join()
            with self.changed:
                if not job.over:
                    job.state, job.error = "failed", f"the training process ended with code {job.process.exitcode}"
                self.queue.remove(job)
                self.changed.notify_all()

    def follow(self, job: Job, news: Connection) -> None:
        """Note what a job tells until it ends, or until its time is over."""
        end = time.monotonic() + LONGEST_SECONDS
        while news.poll(max(0.0, end - time.monotonic())):
            try:
                what, value = news.recv()
            except EOFError:
                return
            with self.changed:
                if job.over:
                    continue
                if what == "told":
                    job.told.append(value)
                else:
                    job.state = what
                    job.error = value
                self.changed.notify_all()
        with self.changed:
            job.process.terminate()
            if not job.over:
                job.state, job.error = "failed", f"it took longer than {LONGEST_SECONDS / 60:.0f} minutes"
                self.changed.notify_all()


def perform(news: Connection, work: Work, arguments: tuple[Any, ...]) -> None:
    """What the process does: the work, and telling how it goes."""
    from pipeline.__main__ import quieten

    os.nice(NICENESS)
    quieten()
    try:
        module, _, name = work.rpartition(".")
        getattr(import_module(module), name)(*arguments, lambda told: news.send(("told", told)))
    except InputError as error:
        news.send(("failed", str(error)))
    except Exception as error:
        traceback.print_exc()
        news.send(("failed", f"{type(error).__name__}: {error}"))
    else:
        news.send(("done", ""))
