"""What every trainer run shares."""

import json
from pathlib import Path

import pytest

from pipeline import processes
from pipeline.errors import InputError
from pipeline.training import Clock, StopOnNaN, last_save, saved_step


def save(work: Path, step: int, state: str) -> Path:
    folder = work / "saves" / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "trainer_state.json").write_text(state)
    return folder


def test_the_newest_complete_save_is_taken_and_torn_ones_go(tmp_path: Path) -> None:
    good = save(tmp_path, 90, json.dumps({"global_step": 90}))
    torn = save(tmp_path, 100, '{"global_')
    empty = tmp_path / "saves" / "checkpoint-110"
    empty.mkdir()
    assert last_save(tmp_path) == str(good)
    assert saved_step(tmp_path) == 90
    assert not torn.exists()
    assert not empty.exists()


def test_without_a_save_a_run_starts_afresh(tmp_path: Path) -> None:
    assert last_save(tmp_path) is None
    assert saved_step(tmp_path) == 0


def test_time_is_counted_over_several_runs(tmp_path: Path) -> None:
    first = Clock(tmp_path)
    first.earlier = 100.0
    first.save()
    assert 100 <= Clock(tmp_path).seconds < 160


def test_processes_share_a_batch_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processes.dealt_out(32) == 32
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert processes.dealt_out(32) == 8
    for batch_size in (2, 30):
        with pytest.raises(InputError, match=f"4 processes cannot share a batch of {batch_size} evenly"):
            processes.dealt_out(batch_size)


def test_a_loss_that_is_no_number_ends_the_run() -> None:
    class State:
        global_step = 7

    with pytest.raises(FloatingPointError, match=r"step 7.*last good save"):
        StopOnNaN().on_log(None, State(), None, logs={"loss": float("nan")})
