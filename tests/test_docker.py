"""The image for a school's own server, as far as it can be tried without Docker: it starts, and is healthy."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from pipeline.recipe import REPOSITORY

DOCKER = REPOSITORY / "docker"
PATIENCE = 120  # seconds


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    """(instruction, its arguments) in the order of the Dockerfile."""
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]
    return [(name, " ".join(rest.split())) for name, rest in lines]


def copied(instructions: list[tuple[str, str]], image: Path) -> None:
    """Lay out the application's folder as the image has it."""
    for name, arguments in instructions:
        if name == "COPY":
            *sources, target = arguments.split()
            for source in sources:
                place = image / (Path(source).name if target == "./" else target)
                place.parent.mkdir(parents=True, exist_ok=True)
                copy = shutil.copytree if (REPOSITORY / source).is_dir() else shutil.copy
                copy(REPOSITORY / source, place)


def test_what_the_image_holds_starts_and_passes_its_health_check(
    instructions: list[tuple[str, str]], tmp_path: Path
) -> None:
    image, data = tmp_path / "app", tmp_path / "data"
    copied(instructions, image)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    def here(text: str) -> str:
        return text.replace("/data", str(data)).replace("7860", port)

    settings = dict(re.findall(r"(\w+)=(\S+)", here(dict(instructions)["ENV"])))
    command = json.loads(here(dict(instructions)["CMD"]))
    check = json.loads(here(dict(instructions)["HEALTHCHECK"].split("CMD ")[1]))
    for path in sorted(image.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | settings
    served = subprocess.Popen([sys.executable, *command[1:]], cwd=image, env=environment)
    try:
        deadline = time.monotonic() + PATIENCE
        while subprocess.run([sys.executable, *check[1:]], capture_output=True).returncode:
            assert served.poll() is None
            assert time.monotonic() < deadline
        assert (data / "rooms").is_dir()
    finally:
        served.terminate()
        assert served.wait(PATIENCE) == 0


def test_it_runs_as_a_normal_user_and_only_the_data_can_be_written(instructions: list[tuple[str, str]]) -> None:
    names = [name for name, _ in instructions]
    assert dict(instructions)["USER"] == "10001"
    assert names.index("RUN") < names.index("USER") < names.index("CMD")
    service = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))["services"]["stagewise"]
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]
    assert [volume.split(":")[1] for volume in service["volumes"]] == [dict(instructions)["VOLUME"]]
    assert (DOCKER / service["build"]["context"]).resolve() == REPOSITORY


def test_the_context_leaves_out_what_the_image_does_not_copy(instructions: list[tuple[str, str]]) -> None:
    ignore = (DOCKER / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    kept = {line[1:] for line in ignore if line.startswith("!")}
    wanted = {source for name, rest in instructions if name == "COPY" for source in rest.split()[:-1]}
    assert ignore[0] == "*"
    assert kept == wanted
