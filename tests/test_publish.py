"""Families on their way to the Hub and back, by the real client, through a server made here."""

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from pipeline.checkpoint import Family, read_checkpoint
from pipeline.publish.space import space_files
from pipeline.recipe import REPOSITORY
from tests.families import add_past, random_family
from tests.hub import TOKEN, Hub, Repository, running_hub

REPO = "school/small"
# What requirements.txt leaves out cannot be imported here; the rest is what a Space without a GPU does.
SERVE = """
import sys
sys.path.insert(0, "")
for name in ("trl", "datasets", "accelerate", "datatrove", "ftfy", "py3langid", "pyarrow", "matplotlib", "spaces"):
    sys.modules[name] = None
from gradio_client import Client
import app
from ui import page
launch = page.launch
def briefly(*arguments, **more):
    blocks = launch(*arguments, **more, prevent_thread_lock=True)
    answers = Client(blocks.local_url, verbose=False).predict("Hi", max_new_tokens=4, api_name="/compare")
    print(list(answers))
    blocks.close()
page.launch = briefly
sys.exit(app.main(["--host", "127.0.0.1"]))
"""


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    family = random_family(tmp_path_factory.mktemp("families") / "random")
    add_past(family, [20, 40])
    return family


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture
def published(hub: Hub, family: Family, tmp_path: Path) -> Hub:
    result = run(hub, tmp_path, "publish", "models", "--family", family.path, "--repo", REPO)
    assert result.returncode == 0, result.stderr
    return hub


def run(hub: Hub, home: Path, *words: str | Path, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline", *map(str, words)]
    return subprocess.run(command, cwd=REPOSITORY, env=settings(hub, home, token), capture_output=True, text=True)


def settings(hub: Hub, home: Path, token: str = TOKEN) -> dict[str, str]:
    return os.environ | hub.environment | {"HF_HOME": str(home / "hub"), "HF_TOKEN": token}


def test_a_family_is_uploaded_whole(published: Hub, family: Family) -> None:
    files = published.repositories[REPO].files
    for stage in ("base", "sft", "reward", "rlhf"):
        for name in ("model.safetensors", "tokenizer.json", "stage.json", "metrics.jsonl"):
            assert files[f"{stage}/{name}"] == (family.path / stage / name).read_bytes()
    assert "rlhf/snapshots/step-0020/adapter_model.safetensors" in files
    assert "recipe.yaml" in files
    assert not [name for name in files if ".work" in name]
    card = files["README.md"].decode()
    assert card.startswith("---\nlanguage: en\nlicense: apache-2.0\n")
    assert "| `reward` |" in card


def test_what_the_family_has_no_more_is_removed(published: Hub, family: Family, tmp_path: Path) -> None:
    published.repositories[REPO].files |= {"old/model.safetensors": b"", ".gitattributes": b""}
    commits = published.repositories[REPO].commits
    assert run(published, tmp_path, "publish", "models", "--family", family.path, "--repo", REPO).returncode == 0
    assert "old/model.safetensors" not in published.repositories[REPO].files
    assert ".gitattributes" in published.repositories[REPO].files
    assert published.repositories[REPO].commits == commits + 1


def test_the_usage_on_the_card_runs_as_it_is_written(published: Hub, tmp_path: Path) -> None:
    card = published.repositories[REPO].files["README.md"].decode()
    usage = card.split("```python\n")[1].split("```")[0]
    command = [sys.executable, "-c", usage]
    result = subprocess.run(command, env=settings(published, tmp_path), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    float(result.stdout.splitlines()[-1])


def test_it_comes_back_verified_and_then_needs_no_network(
    published: Hub, family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts, answers = tmp_path / "prompts.jsonl", tmp_path / "answers.jsonl"
    prompts.write_text('{"id": "1", "prompt": "What is tea?"}\n', encoding="utf-8")
    words = ("compare", "--family", f"hub:{REPO}", "--prompts", prompts, "--out", answers, "--max-new-tokens", "4")
    assert run(published, tmp_path, *words).returncode == 0
    first = answers.read_bytes()
    [folder] = (tmp_path / "hub" / "stagewise").iterdir()
    assert read_checkpoint(folder / "sft").record == family.checkpoint("sft").record
    asked = len(published.requests)
    assert run(published, tmp_path, *words).returncode == 0
    assert answers.read_bytes() == first
    assert len(published.requests) == asked


def test_damage_on_the_way_is_seen_and_nothing_is_kept(published: Hub, tmp_path: Path) -> None:
    files = published.repositories[REPO].files
    weights = files["sft/model.safetensors"]
    files["sft/model.safetensors"] = weights[:-1] + bytes([weights[-1] ^ 1])
    result = run(published, tmp_path, "chat", "--family", f"hub:{REPO}")
    assert result.returncode == 2
    assert "truncated or altered" in result.stderr
    assert not list((tmp_path / "hub" / "stagewise").glob("*"))


@pytest.mark.parametrize(
    ("words", "token", "said"),
    [
        (("chat", "--family", "hub:school/none"), TOKEN, "no such repository, or it is private"),
        (("chat", "--family", "hub:not a name"), TOKEN, "is no name of a repository"),
        (("publish", "models", "--family", "FAMILY", "--repo", REPO), "hf_bad", "(401): log in with"),
        (("publish", "models", "--family", "FAMILY", "--repo", "a/b/c"), TOKEN, "is no name of a repository"),
        (("publish", "models", "--family", "NOWHERE", "--repo", REPO), TOKEN, "no family at"),
    ],
)
def test_what_the_hub_refuses_is_one_clear_line(
    hub: Hub, family: Family, tmp_path: Path, words: tuple[str, ...], token: str, said: str
) -> None:
    paths = {"FAMILY": str(family.path), "NOWHERE": str(tmp_path / "nowhere")}
    result = run(hub, tmp_path, *(paths.get(word, word) for word in words), token=token)
    assert result.returncode == 2
    [line] = result.stderr.strip().splitlines()
    assert said in line
    assert token not in line
    assert not hub.repositories


@pytest.mark.parametrize("words", [("chat", "--family", f"hub:{REPO}"), ("publish", "corpus", "--repo", REPO)])
def test_a_hub_that_cannot_be_reached_is_one_clear_line(tmp_path: Path, words: tuple[str, ...]) -> None:
    result = run(Hub("http://127.0.0.1:9"), tmp_path, *words)
    assert result.returncode == 2
    [line] = result.stderr.strip().splitlines()
    assert "cannot be reached" in line


def test_a_private_family_needs_its_token(hub: Hub, family: Family, tmp_path: Path) -> None:
    words = ("publish", "models", "--family", family.path, "--repo", REPO, "--private")
    assert run(hub, tmp_path, *words).returncode == 0
    assert hub.repositories[REPO].settings["visibility"] == "private"
    result = run(hub, tmp_path, "chat", "--family", f"hub:{REPO}", token="")
    assert result.returncode == 2
    assert "private" in result.stderr


def test_a_damaged_family_is_not_uploaded(hub: Hub, family: Family, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(family.path, damaged)
    (damaged / "sft" / "config.json").write_text("{}", encoding="utf-8")
    result = run(hub, tmp_path, "publish", "models", "--family", damaged, "--repo", REPO)
    assert result.returncode == 2
    assert "truncated or altered" in result.stderr
    assert not hub.repositories


def test_a_space_gets_what_serving_needs_and_nothing_else(hub: Hub, family: Family, tmp_path: Path) -> None:
    words = ("publish", "space", "--family", family.path, "--repo", REPO)
    listed = run(hub, tmp_path, *words, "--dry-run")
    assert listed.returncode == 0, listed.stderr
    assert not hub.repositories
    result = run(hub, tmp_path, *words)
    assert result.returncode == 0, result.stderr
    space = hub.repositories[REPO]
    assert (space.settings["type"], space.settings["sdk"]) == ("space", "gradio")
    assert "hardware" not in space.settings
    assert sorted(line.split()[1] for line in listed.stdout.splitlines()[:-1]) == sorted(space.files)
    assert {"app.py", "requirements.txt", "README.md", "checkpoints/tiny/rlhf/model.safetensors"} <= set(space.files)
    assert not [name for name in space.files if name.startswith("tests/") or "__pycache__" in name]


def test_a_space_that_is_there_gets_its_hardware_and_the_log_of_what_does_not_build_is_shown(
    hub: Hub, family: Family, tmp_path: Path
) -> None:
    hub.repositories[REPO] = Repository({}, runtime=["BUILDING", "BUILD_ERROR"], log=["no such package: gradoi"])
    words = ("publish", "space", "--family", family.path, "--repo", REPO, "--hardware", "zero-a10g")
    result = run(hub, tmp_path, *words)
    assert result.returncode == 2
    assert hub.repositories[REPO].settings["hardware"] == "zero-a10g"
    assert "BUILD_ERROR" in result.stderr
    assert "no such package: gradoi" in result.stderr


def test_its_settings_are_those_that_were_tested() -> None:
    _, front, _ = (REPOSITORY / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    settings = yaml.safe_load(front)
    serving = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8").splitlines()
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"gradio[mcp]=={settings['sdk_version']}" in serving
    assert (REPOSITORY / settings["app_file"]).is_file()
    assert len(settings["short_description"]) <= 60
    pinned = [line for line in serving if line and not line.startswith("#")]
    assert set(pinned) <= set(project["dependencies"])


def test_the_uploaded_files_serve_the_page_without_the_training_packages(family: Family, tmp_path: Path) -> None:
    for name, file in space_files(family).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tmp_path / name)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        [sys.executable, "-c", SERVE], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "['base', 'sft', 'rlhf']" in result.stdout
