"""The page on a ZeroGPU Space, where a GPU is lent for the time of a call, and its columns' one allocation."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pipeline.errors import InputError
from pipeline.inference.decoding import Decoding
from pipeline.inference.models import Answer, side_by_side
from pipeline.recipe import REPOSITORY
from tests.families import random_family
from ui.allocation import Allocation, Source
from ui.answering import LoadedFamily

STAGES = ("base", "sft", "rlhf")
DECODING = Decoding(8, 1.0, seed=5)


@pytest.fixture(scope="module")
def happened(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What came of using the page with the real `spaces` package, see tests/zero_gpu.py."""
    family = random_family(tmp_path_factory.mktemp("families") / "random").path
    command = [sys.executable, "-m", "tests.zero_gpu", str(family)]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_the_columns_share_one_allocation_and_its_process_is_used_again(happened: dict[str, Any]) -> None:
    assert happened["started"] == ["/startup-report"]
    asked, _ = happened["first"]
    assert asked == ["/schedule", "/allow", "/release"]
    asked, _ = happened["second"]
    assert asked == ["/schedule", "/release"]


def test_the_answers_are_those_of_the_processor(happened: dict[str, Any]) -> None:
    assert happened["first"][1] == happened["second"][1] == happened["on the processor"]
    assert list(happened["on the processor"]) == list(STAGES)
    assert all(happened["on the processor"].values())


def test_what_answers_by_itself_stays_on_the_processor(happened: dict[str, Any]) -> None:
    assert set(happened["devices"]) == {"cpu"}


def test_who_stops_gives_the_gpu_back(happened: dict[str, Any]) -> None:
    asked, states = happened["stopped"]
    assert states == ["halted"] * 3
    assert asked == ["/schedule", "/release"]


def test_a_visitor_without_time_left_is_told_so_in_every_column(happened: dict[str, Any]) -> None:
    assert [state for state, _ in happened["spent"]] == ["failed"] * 3
    assert all("GPU limit" in error for _, error in happened["spent"])


def test_answers_side_by_side_are_those_of_each_alone(family: LoadedFamily) -> None:
    together: dict[str, list[Answer]] = {stage: [] for stage in STAGES}
    for stage, answer in side_by_side(family.local, "Hello", DECODING):
        if answer is not None:
            together[stage].append(answer)
    assert together == {stage: list(model.stream("Hello", DECODING)) for stage, model in family.local.items()}


def counting(closed: list[bool]) -> Source:
    """Two stages that write three words each, in turn."""
    try:
        for number in range(1, 4):
            for stage in ("base", "sft"):
                yield stage, Answer(f"{stage} {number}", number, stopped=number == 3)
        for stage in ("base", "sft"):
            yield stage, None
    finally:
        closed.append(True)


def test_columns_that_read_at_the_same_time_get_their_own_answers() -> None:
    closed: list[bool] = []
    allocation = Allocation(counting(closed), ("base", "sft"))
    with ThreadPoolExecutor(2) as threads:
        read = dict(
            zip(("base", "sft"), threads.map(lambda stage: list(allocation.read(stage)), ("base", "sft")), strict=True)
        )
    for stage, answers in read.items():
        assert [answer.text for answer in answers] == [f"{stage} {number}" for number in (1, 2, 3)]
    assert closed == [True]


def test_the_source_ends_when_the_last_column_leaves() -> None:
    closed: list[bool] = []
    allocation = Allocation(counting(closed), ("base", "sft"))
    base, sft = allocation.read("base"), allocation.read("sft")
    assert next(base).text == "base 1"
    base.close()
    assert not closed
    assert [next(sft).text for _ in range(2)] == ["sft 1", "sft 2"]
    sft.close()
    assert closed == [True]


def test_what_goes_wrong_is_raised_in_every_column() -> None:
    def failing() -> Source:
        yield "base", Answer("word", 1, stopped=False)
        raise InputError("the GPU is gone")

    allocation = Allocation(failing(), ("base", "sft"))

    base, sft = allocation.read("base"), allocation.read("sft")
    assert next(base).text == "word"
    for column in (base, sft):
        with pytest.raises(InputError, match="the GPU is gone"):
            next(column)
