"""What a checkpoint and a family are: written whole or not at all, verified when read.

A checkpoint is the folder that a stage writes. A family is the folder that holds the checkpoints of
one recipe, one per stage, and `.work/`, where unfinished stages keep what they need to go on.
"""

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.recipe import Recipe

STAGES = ("tokenizer", "base", "sft", "ranking", "reward", "rlhf", "dpo")
ANSWERING = ("base", "sft", "rlhf", "dpo")
WEIGHTS = "model.safetensors"
RECORD = "stage.json"
PACKAGES = ("torch", "transformers", "trl", "peft", "tokenizers", "datasets", "accelerate")
# Formats that can run code when they are loaded.
REFUSED = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".msgpack", ".h5", ".py"}
# Formats that decide what is loaded: none may be added to a finished checkpoint.
LOADED = {".safetensors", ".json"}
LARGEST_HEADER = 10 * 2**20


@dataclass(frozen=True)
class Checkpoint:
    """A finished stage on disk: its folder and what `stage.json` says of it."""

    path: Path
    record: dict[str, Any]

    @property
    def stage(self) -> str:
        return self.record["stage"]

    @property
    def figures(self) -> dict[str, Any]:
        return self.record["figures"]

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The records of one of its JSON Lines files: `metrics.jsonl`, `samples.jsonl`, `rankings.jsonl`."""
        return read_json_lines(self.path / name)


class Family:
    """The checkpoints that belong together, one folder a stage."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def name(self) -> str:
        return self.path.resolve().name

    def has(self, stage: str) -> bool:
        recover(self.path / stage)
        return (self.path / stage / RECORD).is_file()

    def checkpoint(self, stage: str) -> Checkpoint:
        """The verified checkpoint of a stage. Raises InputError when it is missing or damaged."""
        return read_checkpoint(self.path / stage)

    def work(self, stage: str) -> Path:
        """The folder in which a stage keeps what it needs to resume; made when asked for."""
        folder = self.path / ".work" / stage
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @cached_property
    def stages(self) -> list[str]:
        return [stage for stage in STAGES if self.has(stage)]


def open_family(path: str | Path) -> Family:
    """A family that exists and has at least a base checkpoint; InputError otherwise."""
    family = Family(path)
    if not family.path.is_dir():
        raise InputError(f"no family at {path}; train one with: python -m pipeline run --recipe nano --out {path}")
    if not family.has("base"):
        raise InputError(
            f"{path} holds no finished base stage; go on with: python -m pipeline run --recipe NAME --out {path}"
        )
    return family


def read_checkpoint(path: Path) -> Checkpoint:
    """Verify a checkpoint folder against its `stage.json` without loading anything from it.

    Raises InputError for a missing folder or record, for any file in a format that could run code,
    for a file that is missing, truncated, altered or added since the stage wrote it, and for weights
    that are no safetensors.
    """
    recover(path)
    if not path.is_dir():
        raise InputError(f"no checkpoint at {path}; the stage has not been trained yet")
    present = sorted(file for file in path.rglob("*") if not file.is_dir())
    for file in present:
        if file.suffix.lower() in REFUSED:
            raise InputError(f"{file} could run code when loaded; only safetensors are read, remove it")
    try:
        if not is_inside(path / RECORD, path):
            raise OSError("a link is no record")
        record = json.loads((path / RECORD).read_text(encoding="utf-8"))
        files = dict(record["files"])
        stage = record["stage"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} has no readable {RECORD}; train the stage again") from error
    if stage != path.name:
        raise InputError(f"{path} holds a checkpoint of stage {stage!r}; put it back in a folder of that name")
    for name, digest in files.items():
        file = path / name
        if not is_inside(file, path) or not file.is_file():
            raise InputError(f"{file} is missing; restore it or train the stage again")
        if sha256(file) != digest:
            raise InputError(f"{file} is truncated or altered: it differs from the hash in {RECORD}; restore it")
    for file in present:
        if file.suffix in LOADED and file.name != RECORD and str(file.relative_to(path)) not in files:
            raise InputError(f"{file} was added after the stage was written; remove it")
        if file.suffix == ".safetensors":
            check_header(file)
    return Checkpoint(path, record)


def is_inside(file: Path, folder: Path) -> bool:
    """Whether a file lies in the folder itself, and no link leads out of it."""
    return not file.is_symlink() and file.resolve().is_relative_to(folder.resolve())


def check_header(weights: Path) -> None:
    """Refuse a safetensors file whose header could not be one, before a library gives it memory, or lies."""
    from safetensors import SafetensorError, safe_open

    with weights.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > min(LARGEST_HEADER, weights.stat().st_size - 8):
        raise InputError(f"{weights} is no safetensors file: its header would be {length:,} bytes long; restore it")
    try:
        # Reads the header alone, and compares it with the size of the file.
        with safe_open(weights, framework="np"):
            pass
    except SafetensorError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{weights} is no safetensors file: {reason:.100}; restore it") from error


@contextmanager
def writing(target: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `target` when the block ends well and vanishes otherwise."""
    recover(target)
    temporary = target.with_name(f".{target.name}.writing")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                flush(file)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    old = target.with_name(f".{target.name}.old")
    if target.exists():
        # An earlier run may have been killed just before it removed this.
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
    temporary.rename(target)
    flush(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover(target: Path) -> None:
    """Put the old folder back if a crash fell between the two renames of `writing`."""
    old = target.with_name(f".{target.name}.old")
    if old.exists() and not target.exists():
        old.rename(target)


def write_record(
    folder: Path,
    stage: str,
    recipe: Recipe,
    *,
    corpus: str,
    parent: Checkpoint | None,
    steps: int,
    seconds: float,
    figures: dict[str, Any],
) -> None:
    """Write `stage.json` into a checkpoint folder, last of all: it hashes every other file there."""
    files = {str(file.relative_to(folder)): sha256(file) for file in sorted(folder.rglob("*")) if file.is_file()}
    record = {
        "stage": stage,
        "parent": parent and {"stage": parent.stage, "weights": parent.record["files"].get(WEIGHTS)},
        "recipe": {"name": recipe.name, "sha256": recipe.digest(stage)},
        "corpus": {"sha256": corpus},
        "versions": {package: version(package) for package in PACKAGES} | {"python": platform.python_version()},
        "hardware": hardware(),
        "steps": steps,
        "seconds": round(seconds, 1),
        "figures": figures,
        "files": files,
    }
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def hardware() -> str:
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"{os.cpu_count()} CPU cores ({platform.machine()})"


def write_whole(path: Path, text: str) -> None:
    """Write a file under a temporary name and rename it: readers see the old text or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.writing")
    try:
        # JSON can carry lone surrogates, which no encoding holds: they become question marks.
        temporary.write_text(text, encoding="utf-8", errors="replace")
        flush(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json_lines(path: Path, records: list[dict[str, Any]]) -> None:
    write_whole(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a JSON Lines file. Raises InputError that names the file and the line."""
    if not path.is_file():
        raise InputError(f"no file {path}")
    records = []
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path}, line {number}: not JSON; one object a line is wanted") from error
            if not isinstance(record, dict):
                raise InputError(f"{path}, line {number}: not an object; one object a line is wanted")
            records.append(record)
    return records


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Make sure that a file or a folder's entries have reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
