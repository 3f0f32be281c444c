"""What several tests share."""

import fcntl
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Browser, sync_playwright

from pipeline.__main__ import quieten
from pipeline.recipe import REPOSITORY
from tests.browsing import served
from tests.families import random_family, random_tokenizer
from ui.answering import LoadedFamily, load
from ui.pictures import CHROMIUM_ARGUMENTS

quieten()
# Threads that wait for each other are slow where other work shares the cores: one here, one in each started process.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"

# Begun last, one of these would keep a process busy while the other has nothing left to do.
LONGEST = ("test_resume.py", "test_nano.py", "test_splits.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """A small tokenizer with the control tokens and the chat template."""
    return random_tokenizer()


@pytest.fixture(scope="session")
def nano_family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A family that the command line has really trained, every stage of it. Tests must not change it.

    The test process that asks first trains it for all of them.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with (folder / "nano.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "processor-seconds").exists():
            train_nano(folder)
    return folder / "nano"


def train_nano(folder: Path) -> None:
    command = [sys.executable, "-m", "pipeline", "run", "--recipe", "nano", "--out", str(folder / "nano")]
    before = processor_seconds()
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    (folder / "processor-seconds").write_text(str(processor_seconds() - before))


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> LoadedFamily:
    """A family of random weights, as the page holds it."""
    return load(random_family(tmp_path_factory.mktemp("families") / "random").path)


@pytest.fixture(scope="module")
def address(family: LoadedFamily) -> Iterator[str]:
    """Where the module's family is served."""
    yield from served(family)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


def processor_seconds() -> float:
    """What this process's finished children have used so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
