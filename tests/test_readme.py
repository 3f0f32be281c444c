"""The commands of the README, and of the page on ways to run it, run as they stand there."""

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from pipeline.checkpoint import Family
from pipeline.publish.models import contents
from pipeline.published import PublishedFamily, bundled, find_family
from pipeline.recipe import REPOSITORY
from pipeline.rooms.labels import VOTES, Labels, read_labels
from tests.families import random_family
from tests.hub import TOKEN, Hub, Repository, running_hub
from tests.published import save_answering, upload
from ui.answering import load
from ui.page import launch

PAGES = (REPOSITORY / "README.md", REPOSITORY / "pipeline" / "publish" / "README.md")
README, WAYS = (page.read_text(encoding="utf-8") for page in PAGES)
COMMANDS = [line.strip() for text in (README, WAYS) for line in text.splitlines() if line.startswith("    ")]
ADDRESS = "http://127.0.0.1:7860"
PIPELINE = [command for command in COMMANDS if " -m pipeline " in command]
APP = sorted({command for command in COMMANDS if command.startswith(".venv/bin/python app.py")})
PATIENCE = 120  # seconds


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
def hub(nano_family: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """The Hub as the page supposes it: with a family that somebody has published, and models that others trained."""
    files = {name: file.read_bytes() for name, file in contents(Family(nano_family)).items()}
    with running_hub() as hub:
        hub.repositories["OWNER/FAMILY"] = Repository({}, files)
        for name in {command.split()[-1] for command in APP} & set(bundled()):
            publish(hub, name, tmp_path_factory.mktemp("published"))
        yield hub


def publish(hub: Hub, name: str, work: Path) -> None:
    """Small random models in the places of those that a bundled family file names."""
    family = find_family(name)
    assert isinstance(family, PublishedFamily)
    for seed, (stage, place) in enumerate(family.stages.items()):
        assert place.repo
        assert place.revision
        save_answering(work / stage, "llama", seed)
        upload(hub, place.repo, work / stage).tags.append(place.revision)


def surroundings(folder: Path, hub: Hub) -> dict[str, str]:
    mine = {"PYTHONPATH": str(REPOSITORY), "HF_TOKEN": TOKEN, "HF_HOME": str(folder / "hub")}
    return os.environ | hub.environment | mine


@pytest.mark.parametrize("command", PIPELINE, ids=lambda command: " ".join(command.split()[3:5]))
def test_a_command_of_the_pipeline_runs(command: str, folder: Path, hub: Hub) -> None:
    words = [sys.executable, *shlex.split(command)[1:]]
    result = subprocess.run(words, cwd=folder, env=surroundings(folder, hub), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    if "--repo" in words and "--dry-run" not in words:
        repository = hub.repositories[words[words.index("--repo") + 1]]
        assert repository.commits
        if sdk := repository.settings.get("sdk"):
            assert f"\nsdk: {sdk}\n" in repository.files["README.md"].decode()
    out = folder / words[words.index("--out") + 1] if "--out" in words else folder
    if words[3] in ("reward", "rlhf"):
        assert (out / words[3] / "adapter_model.safetensors").is_file()
    elif out.is_file():
        (written,) = out.read_text(encoding="utf-8").splitlines()
        assert "reward" in written


@pytest.mark.parametrize("command", APP, ids=lambda command: command.split()[-1])
def test_a_command_that_opens_the_page_does(command: str, folder: Path, hub: Hub) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    script, *options = shlex.split(command)[1:]
    words = [sys.executable, str(REPOSITORY / script), *options, "--port", port, "--rooms", str(folder / "rooms")]
    environment = surroundings(folder, hub) | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(words, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as served:
        try:
            assert served.stdout
            assert any("Running on local URL" in line for line in served.stdout)
            assert httpx.get(f"http://127.0.0.1:{port}/", timeout=PATIENCE).status_code == 200
        finally:
            served.terminate()
    assert served.returncode == 0


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_every_file_it_names_exists(page: Path) -> None:
    links = [part.split(")")[0] for part in page.read_text(encoding="utf-8").split("](")[1:]]
    assert links
    assert [link for link in links if not (page.parent / link).exists()] == []
    files = [word for command in COMMANDS if command.startswith("docker") for word in command.split() if "/" in word]
    assert files
    assert [file for file in files if not (REPOSITORY / file).exists()] == []


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
