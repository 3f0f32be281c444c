"""Several processes that train one model together, as `torchrun` and `accelerate launch` start them; one otherwise.

Every process runs the same program. The first one, the main process, says what happens and writes the files.
"""

import os

from pipeline.errors import InputError


def count() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def number() -> int:
    """Which one this is, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_main() -> bool:
    return number() == 0


def wait() -> None:
    """Go on when every process has come here."""
    if count() > 1:
        import torch
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available()).wait_for_everyone()


def dealt_out(batch_size: int) -> int:
    """What each process takes of a batch, so that all together read as much a step as one alone would.

    Raises InputError if it cannot be dealt out evenly.
    """
    each, left = divmod(batch_size, count())
    if left or not each:
        raise InputError(f"{count()} processes cannot share a batch of {batch_size} evenly; start fewer, or change it")
    return each
