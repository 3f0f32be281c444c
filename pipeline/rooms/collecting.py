"""Votes that are collected in a dataset on the Hub, where who runs the page wants that: set the two variables below.

Without them votes stay where the page runs. A Space loses its disk when it restarts, so there they are needed.
"""

import json
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

from huggingface_hub import CommitScheduler
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from pipeline.errors import InputError

DATASET = "STAGEWISE_VOTES"  # the name of a dataset, which is made, privately, if it is not there
TOKEN = "HF_TOKEN"
MINUTES = 5  # between two commits: the Hub asks for no fewer


class Collecting:
    """A file of this process alone, to which lines are added and never changed, and its way to the Hub."""

    def __init__(self, folder: Path, dataset: str, token: str) -> None:
        """Raises InputError if the Hub refuses the token or the name."""
        self.dataset = dataset
        self.file = folder / f"votes-{uuid4().hex}.jsonl"
        try:
            # It also commits when the process ends.
            self.scheduler = CommitScheduler(
                repo_id=dataset, repo_type="dataset", folder_path=folder, every=MINUTES, private=True, token=token
            )
        except (HfHubHTTPError, HFValidationError) as error:
            reason = str(error).strip().splitlines()[0]
            said = f"votes cannot be collected in {dataset!r}: {reason}; check {DATASET} and {TOKEN}"
            raise InputError(said) from error

    def add(self, record: dict[str, Any]) -> None:
        with self.scheduler.lock, self.file.open("a", encoding="utf-8", errors="replace") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())


def collecting(folder: Path) -> Collecting | None:
    """What the environment asks for. Raises InputError if only one of the two is set, or the Hub refuses."""
    dataset, token = os.environ.get(DATASET), os.environ.get(TOKEN)
    if not dataset:
        return None
    if not token:
        raise InputError(f"{DATASET} names a dataset, but {TOKEN} is not set; set both, or neither")
    return Collecting(folder, dataset, token)
