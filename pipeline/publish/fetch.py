"""A family from the Hub: downloaded once, then used without a network."""

import shutil
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.constants import HF_HOME

from pipeline.checkpoint import REFUSED, read_checkpoint, writing
from pipeline.errors import InputError
from pipeline.publish.hub import clear_errors

PREFIX = "hub:"
FAMILIES = Path(HF_HOME) / "stagewise"


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
