"""A checkpoint is written whole or not at all, and nothing damaged or unsafe is ever loaded."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.checkpoint import (
    LARGEST_HEADER,
    RECORD,
    WEIGHTS,
    Family,
    open_family,
    read_checkpoint,
    read_json_lines,
    sha256,
    write_json_lines,
    write_whole,
    writing,
)
from pipeline.errors import InputError
from pipeline.inference.models import load_stage
from tests.families import random_family


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_family(tmp_path_factory.mktemp("families") / "random", ("base", "sft")).path


@pytest.fixture
def family(intact: Path, tmp_path: Path) -> Family:
    """A family that a test may damage."""
    return Family(shutil.copytree(intact, tmp_path / "family"))


def test_an_intact_checkpoint_is_read_and_loaded(family: Family) -> None:
    checkpoint = family.checkpoint("sft")
    assert checkpoint.stage == "sft"
    assert checkpoint.record["files"][WEIGHTS] == sha256(checkpoint.path / WEIGHTS)
    assert load_stage(checkpoint).stage == "sft"
    assert family.stages == ["base", "sft"]


def truncate(folder: Path) -> None:
    weights = folder / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1])


def flip_a_bit(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-100] ^= 1
    (folder / WEIGHTS).write_bytes(content)


def alter_the_settings(folder: Path) -> None:
    settings = folder / "config.json"
    settings.write_text(settings.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 1'))


def remove_the_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def link_to_other_weights(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder.parent / "elsewhere")
    (folder / WEIGHTS).symlink_to(folder.parent / "elsewhere")


def take_the_weights_of_base(folder: Path) -> None:
    shutil.copy(folder.parent / "base" / WEIGHTS, folder / WEIGHTS)


def become_base(folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(folder.parent / "base", folder)


def add_a_pickle(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weights": [1.0]}))


def add_a_deep_pickle(folder: Path) -> None:
    (folder / "snapshots").mkdir()
    (folder / "snapshots" / "optimizer.PT").write_bytes(pickle.dumps({}))


def add_code(folder: Path) -> None:
    (folder / "modeling.py").write_text("raise SystemExit")


def add_an_adapter(folder: Path) -> None:
    shutil.copy(folder / WEIGHTS, folder / "adapter_model.safetensors")


def record_anew(folder: Path) -> None:
    """Make the record agree with the weights, as somebody would who means harm."""
    record = json.loads((folder / RECORD).read_text())
    record["files"][WEIGHTS] = sha256(folder / WEIGHTS)
    (folder / RECORD).write_text(json.dumps(record))


def claim_a_huge_header(folder: Path) -> None:
    with (folder / WEIGHTS).open("r+b") as weights:
        weights.write((LARGEST_HEADER + 1).to_bytes(8, "little"))
        weights.truncate(2 * LARGEST_HEADER)
    record_anew(folder)


def put_a_pickle_in_place_of_the_weights(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(pickle.dumps({"weights": [1.0]}))
    record_anew(folder)


def lie_about_a_tensor(folder: Path) -> None:
    """A header of the right length whose tensor would lie beyond the end of the file."""
    header = json.dumps({"weight": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}}).encode()
    (folder / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header + bytes(64))
    record_anew(folder)


def garble_the_header(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((40).to_bytes(8, "little") + b"{" * 40 + bytes(64))
    record_anew(folder)


def shorten_an_honest_file(folder: Path) -> None:
    truncate(folder)
    record_anew(folder)


def empty_the_weights(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"")
    record_anew(folder)


def link_to_a_folder_elsewhere(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir()
    (folder.parent / "elsewhere" / "notes.json").write_text("{}")
    (folder / "deep").symlink_to(folder.parent / "elsewhere")
    record = json.loads((folder / RECORD).read_text())
    record["files"]["deep/notes.json"] = sha256(folder / "deep" / "notes.json")
    (folder / RECORD).write_text(json.dumps(record))


def link_to_another_record(folder: Path) -> None:
    (folder / RECORD).rename(folder.parent / "elsewhere.json")
    (folder / RECORD).symlink_to(folder.parent / "elsewhere.json")


def nest_the_record(folder: Path) -> None:
    (folder / RECORD).write_text("[" * 100_000)


def remove_the_record(folder: Path) -> None:
    (folder / RECORD).unlink()


def cut_the_record(folder: Path) -> None:
    (folder / RECORD).write_text((folder / RECORD).read_text()[:40])


def empty_the_record(folder: Path) -> None:
    (folder / RECORD).write_text("[]")


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (truncate, "model.safetensors is truncated or altered"),
        (flip_a_bit, "model.safetensors is truncated or altered"),
        (alter_the_settings, "config.json is truncated or altered"),
        (remove_the_weights, "model.safetensors is missing"),
        (link_to_other_weights, "model.safetensors is missing"),
        (take_the_weights_of_base, "model.safetensors is truncated or altered"),
        (become_base, "holds a checkpoint of stage 'base'"),
        (add_a_pickle, "pytorch_model.bin could run code"),
        (add_a_deep_pickle, "snapshots/optimizer.PT could run code"),
        (add_code, "modeling.py could run code"),
        (add_an_adapter, "adapter_model.safetensors was added"),
        (claim_a_huge_header, "model.safetensors is no safetensors file"),
        (put_a_pickle_in_place_of_the_weights, "model.safetensors is no safetensors file"),
        (empty_the_weights, "model.safetensors is no safetensors file"),
        (lie_about_a_tensor, "model.safetensors is no safetensors file"),
        (garble_the_header, "model.safetensors is no safetensors file"),
        (shorten_an_honest_file, "model.safetensors is no safetensors file"),
        (link_to_a_folder_elsewhere, "deep/notes.json is missing"),
        (link_to_another_record, "no readable stage.json"),
        (nest_the_record, "no readable stage.json"),
        (remove_the_record, "no readable stage.json"),
        (cut_the_record, "no readable stage.json"),
        (empty_the_record, "no readable stage.json"),
        (shutil.rmtree, "has not been trained yet"),
    ],
)
def test_a_damaged_checkpoint_is_refused(family: Family, damage: Callable[[Path], None], complaint: str) -> None:
    damage(family.path / "sft")
    with pytest.raises(InputError, match=complaint) as error:
        family.checkpoint("sft")
    assert "\n" not in str(error.value)
    assert family.checkpoint("base").stage == "base", "the others stay usable"


def cut(file: Path, other: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file: Path, other: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def swap(file: Path, other: Path) -> None:
    shutil.copy(other, file)


def pickled(file: Path, other: Path) -> None:
    file.write_bytes(pickle.dumps({"weights": [1.0]}))


def linked(file: Path, other: Path) -> None:
    outside = file.parents[2] / file.name
    file.rename(outside)
    file.symlink_to(outside)


@pytest.mark.parametrize("damage", [cut, flip, swap, pickled, linked])
def test_every_file_of_a_stage_is_verified(
    family: Family, damage: Callable[[Path, Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, other = family.path / "sft", family.path / "base"
    names = [str(file.relative_to(folder)) for file in sorted(folder.rglob("*")) if file.is_file()]
    assert len(names) >= 5
    for name in names:
        file, before = folder / name, (folder / name).read_bytes()
        # The record hashes the others, not itself; a file that both stages share may be swapped.
        if (damage is flip and name == RECORD) or (damage is swap and (other / name).read_bytes() == before):
            continue
        damage(file, other / name)
        assert main(["chat", "--family", str(family.path), "--stage", "sft"]) == 2, name
        said, told = capsys.readouterr()
        assert (said, len(told.splitlines())) == ("", 1)
        file.unlink()
        file.write_bytes(before)
    assert family.checkpoint("sft").stage == "sft"


def test_a_family_needs_a_base_stage(family: Family, tmp_path: Path) -> None:
    assert open_family(family.path).has("base")
    with pytest.raises(InputError, match="no family at"):
        open_family(tmp_path / "nowhere")
    shutil.rmtree(family.path / "base")
    with pytest.raises(InputError, match="no finished base stage"):
        open_family(family.path)


def contents(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir()}


def test_writing_replaces_the_old_folder_when_it_ends_well(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with writing(tmp_path / "sft") as folder:
            (folder / f"{text}.txt").write_text(text)
    assert contents(tmp_path / "sft") == {"new.txt": "new"}
    assert [file.name for file in tmp_path.iterdir()] == ["sft"]


@pytest.mark.parametrize("failure", [OSError("no space left on device"), KeyboardInterrupt()])
def test_writing_keeps_the_old_folder_when_it_fails(tmp_path: Path, failure: BaseException) -> None:
    def fail() -> None:
        with writing(tmp_path / "sft") as folder:
            (folder / "half.txt").write_text("half")
            raise failure

    with pytest.raises(type(failure)):
        fail()
    assert not list(tmp_path.iterdir()), "without an old folder, nothing should be left"
    with writing(tmp_path / "sft") as folder:
        (folder / "old.txt").write_text("old")
    with pytest.raises(type(failure)):
        fail()
    assert contents(tmp_path / "sft") == {"old.txt": "old"}
    assert [file.name for file in tmp_path.iterdir()] == ["sft"]


def test_a_crash_between_the_two_renames_leaves_the_old_one(family: Family) -> None:
    (family.path / "sft").rename(family.path / ".sft.old")
    assert Family(family.path).has("sft")
    assert family.checkpoint("sft").stage == "sft"


def test_a_crash_before_tidying_up_leaves_the_new_one(tmp_path: Path) -> None:
    for name in ("sft", ".sft.old", ".sft.writing"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "which.txt").write_text(name)
    with writing(tmp_path / "sft") as folder:
        (folder / "which.txt").write_text("newest")
        assert contents(tmp_path / "sft") == {"which.txt": "sft"}
    assert contents(tmp_path / "sft") == {"which.txt": "newest"}
    assert [file.name for file in tmp_path.iterdir()] == ["sft"]


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    write_json_lines(path, [{"text": "naïve 😀"}])
    with pytest.raises(TypeError):
        write_json_lines(path, [{"text": "fine"}, {"text": object()}])
    assert read_json_lines(path) == [{"text": "naïve 😀"}]
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_whole(tmp_path / "folder", "text")
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == ["answers.jsonl"]


def test_a_lone_surrogate_does_not_stop_the_writing(tmp_path: Path) -> None:
    write_json_lines(tmp_path / "lines.jsonl", [{"text": "a\ud800b"}])
    assert read_json_lines(tmp_path / "lines.jsonl") == [{"text": "a?b"}]


@pytest.mark.parametrize(("line", "complaint"), [("{", "line 2: not JSON"), ("[1]", "line 2: not an object")])
def test_a_bad_line_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text(f'{{"fine": 1}}\n{line}\n')
    with pytest.raises(InputError, match=complaint):
        read_json_lines(path)
    with pytest.raises(InputError, match="no checkpoint at"):
        read_checkpoint(path)
