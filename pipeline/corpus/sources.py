"""Rows of real text, from wherever the recipe says they are."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.recipe import REPOSITORY, Source

FORMATS = {".parquet": "parquet", ".jsonl": "json"}
# Rows held in memory while shuffling. Smaller sets are shuffled completely.
SHUFFLED = 50_000


def rows(source: Source) -> Iterator[dict[str, Any]]:
    """The raw rows of a source, `source.rows` of them at most.

    Files are usually sorted, by book or by topic. So where only a part is wanted, the rows come shuffled,
    always in the same order, and the part stands for the whole.
    Raises InputError when the source is missing or unreadable.
    """
    try:
        dataset = open_dataset(source)
        yield from dataset if source.rows is None else shuffled(dataset).take(source.rows)
    except (OSError, ValueError) as error:
        raise InputError(f"{missing(source)}: {' '.join(str(error).split())[:200]}") from error


def unread_rows(source: Source) -> Iterator[dict[str, Any]]:
    """The raw rows that `rows` leaves out, in the same order; none where it reads all."""
    if source.rows is not None:
        yield from shuffled(open_dataset(source)).skip(source.rows)


def check_columns(source: Source, columns: Iterable[str], row: dict[str, Any]) -> None:
    """Raise InputError for a row that lacks one of the columns."""
    absent = [column for column in columns if column not in row]
    if absent:
        raise InputError(
            f"source {source.name!r} of kind {source.kind!r} has no column {absent[0]!r}; it has {', '.join(row)}"
        )


def shuffled(dataset: Any) -> Any:
    return dataset.shuffle(seed=0, buffer_size=SHUFFLED)


def open_dataset(source: Source) -> Any:
    """The source as a streamed `datasets.IterableDataset`."""
    from datasets import load_dataset

    if source.path is None:
        return load_dataset(source.dataset, source.config, revision=source.revision, split=source.split, streaming=True)
    files = data_files(REPOSITORY / source.path)
    if not files:
        raise InputError(f"{missing(source)}: no .parquet or .jsonl file there")
    return load_dataset(
        FORMATS[files[0].suffix], data_files=[str(file) for file in files], split="train", streaming=True
    )


def data_files(path: Path) -> list[Path]:
    """The file itself, or all the files of one format in a folder."""
    if path.is_file():
        return [path] if path.suffix in FORMATS else []
    return sorted(path.rglob("*.parquet")) or sorted(path.rglob("*.jsonl"))


def missing(source: Source) -> str:
    place = source.path or f"{source.dataset} on the Hub"
    return f"cannot read the source {source.name!r} ({place}); mend it or go on with --authored-only"
