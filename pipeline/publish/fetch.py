"""A family or a model from the Hub: downloaded once, then used without a network."""

import shutil
import sys
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.constants import HF_HOME

from pipeline.checkpoint import REFUSED, read_checkpoint, write_whole, writing
from pipeline.errors import InputError
from pipeline.publish.hub import clear_errors
from pipeline.published import NoSafetensors

PREFIX = "hub:"
FAMILIES = Path(HF_HOME) / "stagewise"
# One small file for each model that is in the Hub's own cache as a whole: it says where.
MODELS = Path(HF_HOME) / "stagewise-models"
WEIGHTS = ".safetensors"
READ = {WEIGHTS, ".json", ".jinja", ".txt", ".model"}


def local(family: str | Path) -> Path:
    """The folder of a family, which is fetched first if it is named `hub:OWNER/NAME`."""
    name = str(family)
    return fetch(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else Path(family)


def fetch(name: str) -> Path:
    """The folder of the family `OWNER/NAME`, or of one of its revisions, `OWNER/NAME@REVISION`.

    What was downloaded is used again without asking the Hub; another revision is another download. Every checkpoint
    is verified before it counts. Raises InputError for what is missing, private, damaged, or no family.
    """
    repo, _, revision = name.partition("@")
    folder = FAMILIES / name.replace("/", "--")
    if folder.is_dir():
        return folder
    with clear_errors(repo), writing(folder) as temporary:
        unsafe = [f"*{suffix}" for suffix in REFUSED]
        snapshot_download(repo, revision=revision or None, local_dir=temporary, ignore_patterns=unsafe)
        shutil.rmtree(temporary / ".cache", ignore_errors=True)
        records = sorted(temporary.glob("*/stage.json"))
        if not records:
            raise InputError(f"{repo!r} on the Hub is no family: none of its folders has a stage.json")
        for record in records:
            read_checkpoint(record.parent)
    return folder


def fetch_model(repo: str, revision: str) -> Path:
    """The folder with the configuration, the tokenizer and the safetensors of a published model.

    It lies in the Hub's own cache, and is used again without asking the Hub: `main` stays what it was when it was
    fetched. Raises NoSafetensors, and InputError for what is missing, private, or cannot be reached.
    """
    note = MODELS / f"{repo}@{revision}".replace("/", "--")
    if note.is_file() and (folder := Path(note.read_text(encoding="utf-8"))).is_dir():
        return folder
    with clear_errors(repo):
        found = HfApi().model_info(repo, revision=revision)
        # What lies in folders is the same in other formats.
        names = [file.rfilename for file in found.siblings or [] if "/" not in file.rfilename]
        if not any(name.endswith(WEIGHTS) for name in names):
            raise NoSafetensors(f"{repo} has no safetensors, and nothing else is loaded")
        print(f"downloading {repo}, once", file=sys.stderr)
        wanted = [name for name in names if Path(name).suffix in READ]
        folder = Path(snapshot_download(repo, revision=found.sha, allow_patterns=wanted))
    write_whole(note, str(folder))
    return folder
