"""The README's commands, run as they stand there."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from pipeline.recipe import REPOSITORY
from pipeline.rooms.labels import VOTES, Labels, read_labels
from tests.families import random_family
from tests.hub import TOKEN, Hub, running_hub
from ui.answering import load
from ui.page import launch

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
COMMANDS = [line.strip() for line in README.splitlines() if line.startswith("    ")]
ADDRESS = "http://127.0.0.1:7860"
PIPELINE = [command for command in COMMANDS if command.startswith(".venv/bin/python -m pipeline")]


@pytest.fixture(scope="module")
def folder(nano_family: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the README supposes it: with a trained nano family, prompts and exchanges."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(nano_family, folder / "checkpoints" / "nano")
    for name in ("prompts", "exchanges"):
        (line,) = [part for part in README.split("`") if part.startswith("{") and example_of(part) == name]
        (folder / f"{name}.jsonl").write_text(line + "\n", encoding="utf-8")
    votes = (nano_family / "ranking" / "rankings.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "votes.jsonl").write_text("".join(votes[:20]), encoding="utf-8")
    labels = read_labels(folder / "votes.jsonl")
    Labels(folder / "rooms" / VOTES).add([label.model_copy(update={"room": "class-7b"}) for label in labels])
    return folder


def example_of(line: str) -> str:
    return "exchanges" if "response" in json.loads(line) else "prompts"


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        yield hub


@pytest.mark.parametrize("command", PIPELINE, ids=lambda command: " ".join(command.split()[3:5]))
def test_a_command_of_the_pipeline_runs(command: str, folder: Path, hub: Hub) -> None:
    words = [sys.executable, *shlex.split(command)[1:]]
    environment = os.environ | hub.environment | {"PYTHONPATH": str(REPOSITORY), "HF_TOKEN": TOKEN}
    result = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    out = folder / words[words.index("--out") + 1] if "--out" in words else folder
    if words[3] in ("reward", "rlhf"):
        assert (out / words[3] / "adapter_model.safetensors").is_file()
    elif out.is_file():
        (written,) = out.read_text(encoding="utf-8").splitlines()
        assert "reward" in written


def test_its_example_for_programs_runs_against_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, example = README.split("```python\n")
    example = example.split("```")[0]
    blocks = launch(
        load(random_family(tmp_path / "random").path), "127.0.0.1", None, prevent_thread_lock=True, quiet=True
    )
    assert blocks.local_url
    assert ADDRESS in example
    capsys.readouterr()
    names: dict[str, object] = {}
    exec(example.replace(ADDRESS, blocks.local_url), names)
    printed = capsys.readouterr().out
    assert all(f"{stage} " in printed for stage in ("base", "sft", "rlhf"))
    assert isinstance(names["reward"], float)
    for place in (f"{ADDRESS}/?view=api", f"{ADDRESS}/gradio_api/mcp/"):
        assert place in README
        answer = httpx.get(place.replace(f"{ADDRESS}/", blocks.local_url), headers={"accept": "text/html"})
        assert answer.status_code == 200
    blocks.close()


def test_every_make_target_exists() -> None:
    targets = [command.split()[1] for command in COMMANDS if command.startswith("make ")]
    assert targets
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert [target for target in targets if f"\n{target}:" not in makefile] == []


def test_every_file_it_names_exists() -> None:
    links = [part.split(")")[0] for part in README.split("](")[1:]]
    assert links
    assert [link for link in links if not (REPOSITORY / link).exists()] == []


def test_its_figures_are_those_of_the_report_card() -> None:
    report = json.loads((REPOSITORY / "checkpoints" / "tiny" / "report.json").read_text(encoding="utf-8"))
    measured = {
        (figure["name"], stage): f"{100 * figure['value']:.0f} %"
        for stage, figures in report["stages"].items()
        for figure in figures
    }
    table = README.split("| share of answers | base | SFT | RLHF |\n|---|---|---|---|\n")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert len(rows) > 5
    for name, *shown in rows:
        assert shown == [measured[name, stage] for stage in ("base", "sft", "rlhf")], name
    met = sum(bar["met"] is True for bar in report["bars"])
    assert f"{met} of {len(report['bars'])} bars" in README
