"""Training beside the page: one job at a time, in a process that may fail, be cancelled, or die."""

import atexit
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.errors import InputError
from ui.jobs import MOST_WAITING, Jobs

PATIENCE = 60  # seconds


def counting(count: int, report: Callable[[dict[str, Any]], None]) -> None:
    for step in range(1, count + 1):
        report({"step": step, "steps": count})


def refusing(report: Callable[[dict[str, Any]], None]) -> None:
    raise InputError("vote first")


def breaking(report: Callable[[dict[str, Any]], None]) -> None:
    raise ValueError("no such number")


def dying(report: Callable[[dict[str, Any]], None]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def endless(report: Callable[[dict[str, Any]], None]) -> None:
    report({"step": 1, "steps": 2})
    signal.pause()


def work(function: Callable[..., None]) -> str:
    return f"{__name__}.{function.__name__}"


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_jobs_run_one_after_the_other_and_tell_all() -> None:
    jobs = Jobs()
    first, second = (jobs.start(room, "retrain", work(counting), 3) for room in ("one", "two"))
    assert jobs.place(second) == 1
    assert jobs.wait(second, PATIENCE)
    assert (first.state, second.state) == ("done", "done")
    assert [told["step"] for told in first.told] == [1, 2, 3]
    assert jobs.of("one", "retrain") is first
    assert jobs.of("one", "move") is None


@pytest.mark.parametrize(
    ("function", "said"),
    [(refusing, "vote first"), (breaking, "ValueError: no such number"), (dying, "ended with code -9")],
)
def test_what_goes_wrong_is_told_and_the_next_job_runs(function: Callable[..., None], said: str) -> None:
    jobs = Jobs()
    wrong, right = jobs.start("one", "move", work(function)), jobs.start("two", "move", work(counting), 1)
    assert jobs.wait(right, PATIENCE)
    assert wrong.state == "failed"
    assert said in wrong.error
    assert right.state == "done"


def test_a_job_is_cancelled_wherever_it_stands() -> None:
    jobs = Jobs()
    running, waiting = (jobs.start(room, "move", work(endless)) for room in ("one", "two"))
    jobs.cancel(waiting)
    wait_until(lambda: bool(running.told))
    jobs.cancel(running)
    assert (running.state, waiting.state) == ("cancelled", "cancelled")
    after = jobs.start("two", "move", work(counting), 1)
    assert jobs.wait(after, PATIENCE)
    assert after.state == "done"
    jobs.cancel(after)
    assert after.state == "done"


def lingering(report: Callable[[dict[str, Any]], None]) -> None:
    atexit.register(signal.pause)


def test_a_room_may_train_again_before_the_last_process_has_gone() -> None:
    jobs = Jobs()
    first = jobs.start("one", "retrain", work(lingering))
    assert jobs.wait(first, PATIENCE)
    second = jobs.start("one", "move", work(counting), 1)
    assert first.process.is_alive()
    first.process.kill()
    assert jobs.wait(second, PATIENCE)
    assert (first.state, second.state) == ("done", "done")


def test_a_room_trains_once_at_a_time_and_the_queue_has_an_end() -> None:
    jobs = Jobs()
    started = [jobs.start("one", "move", work(endless))]
    with pytest.raises(InputError, match="this room is training already"):
        jobs.start("one", "retrain", work(counting), 1)
    started += [jobs.start(f"room {number}", "move", work(counting), 1) for number in range(MOST_WAITING - 1)]
    with pytest.raises(InputError, match="too many rooms wait"):
        jobs.start("last", "move", work(counting), 1)
    for job in started:
        jobs.cancel(job)
