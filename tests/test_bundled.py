"""The family that ships: it is what the committed recipe makes, and the page opens with it."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.checkpoint import STAGES, Family
from pipeline.recipe import REPOSITORY, load_recipe
from pipeline.training import FIXED_PROMPTS

TINY = REPOSITORY / "checkpoints" / "tiny"
LARGEST = 150 * 10**6


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_what_the_committed_recipe_makes(stage: str) -> None:
    """Of a corpus that may have grown since, but the same for every stage: the log says when."""
    record = Family(TINY).checkpoint(stage).record
    assert record["recipe"]["sha256"] == load_recipe("tiny").digest(stage)
    assert record["corpus"] == Family(TINY).checkpoint("base").record["corpus"]


def test_the_family_is_small_enough_to_ship() -> None:
    tracked = subprocess.run(["git", "ls-files", "-z", str(TINY)], cwd=REPOSITORY, capture_output=True, check=True)
    files = [REPOSITORY / os.fsdecode(name) for name in tracked.stdout.split(b"\0") if name]
    assert files
    assert sum(file.stat().st_size for file in files) < LARGEST
    assert not [file for file in files if file.name == "removed.jsonl" or ".work" in file.parts]


@pytest.fixture(scope="module")
def page() -> Any:
    """A client of `python app.py`, as `make demo` starts it."""
    from gradio_client import Client

    with subprocess.Popen(
        [sys.executable, "app.py"],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        address = next(found for line in server.stdout if (found := re.search(r"http://\S+", line)))
        yield Client(address.group(), verbose=False)
        server.terminate()


def test_the_page_answers_the_five_prompts(page: Any) -> None:
    texts: dict[str, list[str]] = {"base": [], "sft": [], "rlhf": []}
    for prompt in FIXED_PROMPTS:
        answers = page.predict(prompt, api_name="/compare")
        assert list(answers) == list(texts)
        for stage, answer in answers.items():
            texts[stage].append(answer["text"].strip())
            assert isinstance(answer["reward"], float)
    for said in texts.values():
        assert all(said)
        assert len(set(said)) == len(FIXED_PROMPTS)
    # Where SFT knows what is asked and nothing is to be improved, RLHF says the same.
    assert not set(texts["base"]) & {*texts["sft"], *texts["rlhf"]}
    assert texts["sft"] != texts["rlhf"]


def test_base_does_not_know_when_to_stop_and_the_others_do(page: Any) -> None:
    answers = [page.predict(prompt, api_name="/compare") for prompt in FIXED_PROMPTS]
    assert sum(answer["base"]["stopped"] for answer in answers) <= 1
    assert sum(answer["sft"]["stopped"] for answer in answers) >= 4
    assert sum(answer["rlhf"]["stopped"] for answer in answers) >= 4


def test_the_readme_shows_it() -> None:
    assert (REPOSITORY / "assets" / "pictures" / "compare.png").stat().st_size > 10_000
    assert Path(TINY / ".." / "LOG.md").is_file()
