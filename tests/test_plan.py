"""What a dry run says, with and without the Hub."""

from pathlib import Path

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from pipeline.__main__ import main
from pipeline.recipe import load_recipe
from pipeline.run import stages_of
from tests.pretrained import base_on_the_hub

OFFLINE = LocalEntryNotFoundError("offline")


def unreachable(*_: object, **__: object) -> str:
    raise OFFLINE


def test_nano_needs_nothing_from_anywhere(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["run", "--recipe", "nano", "--dry-run", "--until", "sft", "--out", str(tmp_path / "family")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "download: nothing"
    assert [line.split(":")[0] for line in lines[2:4]] == ["base", "sft"]
    assert "base: 400,000 tokens trained on" in lines[2]
    assert "GFLOP/s" in lines[4]
    assert not (tmp_path / "family").exists()


@pytest.mark.parametrize("reached", [True, False])
def test_a_pretrained_base(
    reached: bool, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = str(base_on_the_hub(tmp_path / "hub", "olmo2") / "config.json")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", (lambda *_, **__: config) if reached else unreachable)
    assert main(["run", "--recipe", "olmo2-1b-qlora", "--dry-run"]) == 0
    told = capsys.readouterr().out
    recipe = load_recipe("olmo2-1b-qlora")
    for kind, name, revision in recipe.repositories:
        assert f"download: {kind} {name} at {revision}" in told
    for stage in stages_of(recipe):
        assert f"\n{stage}: " in told
    assert ("the Hub cannot be reached" in told) != reached
    assert ("parameters trained" in told) == reached
