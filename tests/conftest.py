"""What several tests share."""

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.__main__ import quieten
from pipeline.recipe import REPOSITORY
from tests.families import random_tokenizer

quieten()
# Threads that wait for each other are slow where other work shares the cores.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """A small tokenizer with the control tokens and the chat template."""
    return random_tokenizer()


@pytest.fixture(scope="session")
def nano_family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A family that the command line has really trained, every stage of it. Tests must not change it."""
    family = tmp_path_factory.mktemp("families") / "nano"
    command = [sys.executable, "-m", "pipeline", "run", "--recipe", "nano", "--out", str(family)]
    before = processor_seconds()
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    family.with_name("processor-seconds").write_text(str(processor_seconds() - before))
    return family


def processor_seconds() -> float:
    """What this process's finished children have used so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
