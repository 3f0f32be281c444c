"""Votes on their way to a dataset on the Hub, by the real client, to a server made here."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.recipe import REPOSITORY
from pipeline.rooms.collecting import DATASET, collecting
from pipeline.rooms.collecting import TOKEN as TOKEN_VARIABLE
from tests.hub import TOKEN, Hub, running_hub

COLLECT = """
import sys
from pathlib import Path
from app import stop_when_asked
from pipeline.errors import InputError
from pipeline.rooms.collecting import collecting
stop_when_asked()
try:
    found = collecting(Path(sys.argv[1]))
except InputError as error:
    sys.exit(str(error))
found.add({"vote": 1})
found.add({"vote": 2})
print("added", flush=True)
sys.stdin.read()
"""


def collect(hub: Hub, folder: Path, dataset: str, token: str = TOKEN) -> subprocess.Popen[str]:
    settings = hub.environment | {DATASET: dataset, TOKEN_VARIABLE: token}
    return subprocess.Popen(
        [sys.executable, "-c", COLLECT, str(folder)],
        cwd=REPOSITORY,
        env=os.environ | settings,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("end", ["end of input", "signal"])
def test_stopping_the_process_sends_what_is_left(tmp_path: Path, end: str) -> None:
    with running_hub() as hub:
        process = collect(hub, tmp_path, "school/votes")
        assert process.stdout
        assert process.stdout.readline() == "added\n"
        if end == "signal":
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        repository = hub.repositories["school/votes"]
        [(name, content)] = repository.files.items()
        assert (repository.settings["type"], repository.settings["visibility"]) == ("dataset", "private")
        assert [json.loads(line)["vote"] for line in content.splitlines()] == [1, 2]
        assert (tmp_path / name).read_bytes() == content


def test_a_refused_token_is_one_clear_line_without_the_token(tmp_path: Path) -> None:
    with running_hub() as hub:
        _, errors = collect(hub, tmp_path, "school/votes", "hf_bad").communicate(timeout=60)
    assert "votes cannot be collected in 'school/votes'" in errors
    assert "hf_bad" not in errors
    assert not hub.repositories


def test_half_a_setting_is_refused_and_none_collects_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DATASET, raising=False)
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert collecting(tmp_path) is None
    monkeypatch.setenv(DATASET, "school/votes")
    with pytest.raises(InputError, match="set both, or neither"):
        collecting(tmp_path)
