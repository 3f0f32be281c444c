"""A run that is killed at any moment goes on where it stopped, and ends as an unbroken one ends."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.checkpoint import STAGES, Checkpoint, Family
from pipeline.recipe import RECIPES, REPOSITORY

# What stands in a stage's work folder once there is something to go on from.
SAVED = {
    "base": "saves/checkpoint-30/trainer_state.json",  # the last: no step is left to train
    "sft": "saves/checkpoint-*/trainer_state.json",
    "ranking": "batch-*.json",
    "reward": "saves/checkpoint-*/trainer_state.json",
    "rlhf": "saves/checkpoint-*/trainer_state.json",
}
SECONDS = 1800  # only so that a hang ends
# How often a run is killed at a moment that nobody chose; `make fuzz` sets more.
KILLS = int(os.environ.get("RANDOM_KILLS", "1"))
# Said by every stage that samples while it trains, but only when it starts afresh.
FRESH = "after 0 steps"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nano with smaller numbers, each stage long enough to be caught in the middle."""
    content = yaml.safe_load((RECIPES / "nano.yaml").read_text(encoding="utf-8"))
    content["name"] = "smaller"
    content["corpus"]["domains"] = ["honesty"]
    content["tokenizer"] |= {"vocabulary_size": 512, "documents": 200}
    content["model"] |= {"hidden_size": 64, "layers": 2, "heads": 2, "intermediate_size": 128, "context": 128}
    content["base"] |= {"tokens": [30 * 4 * 128, 30 * 4 * 128], "batch_size": 4, "save_every": 10, "sample_every": 30}
    content["sft"] |= {"batch_size": 8, "save_every": 10, "sample_every": 40}
    content["ranking"] |= {"prompts": 64, "answers": 2, "max_new_tokens": 16, "batch_size": 4, "held_out": 0.4}
    content["reward"] |= {"batch_size": 4, "save_every": 5}
    content["rlhf"] |= {"steps": 12, "max_new_tokens": 16, "evaluate_every": 2}
    content["dpo"] |= {"save_every": 10}
    path = tmp_path_factory.mktemp("recipe") / "smaller.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


class Run:
    """A training run in a process of its own, and what it says."""

    def __init__(self, recipe: Path, out: Path, processes: int = 1) -> None:
        self.log = out.with_name(f"{out.name}-{time.monotonic_ns()}.log")
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        command = [sys.executable, *(launcher if processes > 1 else [])]
        command += ["-m", "pipeline", "run", "--recipe", str(recipe), "--out", str(out)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=subprocess.STDOUT)

    @property
    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def finish(self) -> str:
        try:
            assert self.process.wait(SECONDS) == 0, self.said
        finally:
            self.process.kill()
        return self.said

    def kill_when(self, folder: Path, pattern: str) -> str:
        """SIGKILL as soon as a file of that name stands in the folder."""
        deadline = time.monotonic() + SECONDS
        try:
            while not any(folder.glob(pattern)):
                assert self.process.poll() is None, self.said
                assert time.monotonic() < deadline, self.said
                time.sleep(0.005)
        finally:
            self.process.kill()
        assert self.process.wait() == -signal.SIGKILL
        return self.said

    def kill_after(self, seconds: float) -> bool:
        """SIGKILL after so long; whether the run was still going on."""
        try:
            assert self.process.wait(seconds) == 0, self.said
        except subprocess.TimeoutExpired:
            self.process.kill()
            assert self.process.wait() == -signal.SIGKILL
            return True
        return False


@pytest.fixture(scope="module")
def unbroken(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Family, str]:
    out = tmp_path_factory.mktemp("unbroken") / "family"
    return Family(out), Run(recipe, out).finish()


def figures(checkpoint: Checkpoint) -> dict[str, float]:
    """Those that do not depend on how fast the machine was."""
    found = dict(numbers(checkpoint.figures))
    assert found
    return {name: value for name, value in found.items() if "second" not in name and "matrix_rate" not in name}


def numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Every number in nested figures, by its path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from numbers(inner, f"{name}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from numbers(inner, f"{name}.{index}")
    elif isinstance(value, int | float):
        yield name, value


def test_killed_in_every_stage(recipe: Path, unbroken: tuple[Family, str], tmp_path: Path) -> None:
    whole, whole_said = unbroken
    out = tmp_path / "family"
    said = ""
    for stage, saved in SAVED.items():
        said += Run(recipe, out).kill_when(out / ".work" / stage, saved)
        assert not Family(out).has(stage), f"{stage} ended before it could be killed"
    said += Run(recipe, out).finish()

    same_as(whole, Family(out), "killed in every stage")
    assert said.count(FRESH) == whole_said.count(FRESH) > 0
    assert not [entry for entry in (out / ".work").iterdir() if entry.name in STAGES]


def test_killed_at_random_moments(recipe: Path, unbroken: tuple[Family, str], tmp_path: Path) -> None:
    whole, _ = unbroken
    seed = random.randrange(2**32)
    moments = random.Random(seed)
    out = tmp_path / "family"
    killed = 0
    while killed < KILLS:
        if Run(recipe, out).kill_after(moments.uniform(1, 30)):
            killed += 1
        else:
            same_as(whole, Family(out), f"seed {seed}, {killed} kills")
            shutil.rmtree(out)
        for stage in Family(out).stages:
            Family(out).checkpoint(stage)  # reads every file of it
    Run(recipe, out).finish()
    same_as(whole, Family(out), f"seed {seed}, {killed} kills")


def same_as(whole: Family, family: Family, how: str) -> None:
    assert family.stages == whole.stages == list(STAGES), how
    for stage in STAGES:
        expected, found = whole.checkpoint(stage), family.checkpoint(stage)
        assert found.record["steps"] == expected.record["steps"], f"{stage}, {how}"
        assert figures(found) == pytest.approx(figures(expected), abs=1e-3), f"{stage}, {how}"


def test_two_processes_go_on_with_what_one_began(recipe: Path, unbroken: tuple[Family, str], tmp_path: Path) -> None:
    whole, _ = unbroken
    out = tmp_path / "family"
    said = Run(recipe, out).kill_when(out / ".work" / "base", SAVED["base"])
    said += Run(recipe, out, processes=2).finish()

    family = Family(out)
    assert family.stages == list(STAGES)
    for stage in STAGES:
        assert len(re.findall(rf"^{stage}: \d+ seconds", said, re.MULTILINE)) == (2 if stage == "base" else 1)
        # Pairs are counted of sampled answers, which rounding changes; the other stages go by the recipe.
        if stage not in ("reward", "dpo"):
            assert family.checkpoint(stage).record["steps"] == whole.checkpoint(stage).record["steps"]
    for stage, loss in (("base", "loss"), ("sft", "held_out_loss")):
        assert family.checkpoint(stage).figures[loss] == pytest.approx(whole.checkpoint(stage).figures[loss], abs=0.02)
