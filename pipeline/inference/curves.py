"""What a stage logged while it trained, as points to draw."""

import math
from typing import Any

from pipeline.checkpoint import Checkpoint
from pipeline.errors import InputError

METRICS = "metrics.jsonl"

Record = dict[str, Any]
Points = list[tuple[int, float]]


def logged(checkpoint: Checkpoint) -> list[Record]:
    """The lines of a stage's `metrics.jsonl`, in the order of its steps.

    The reward model is tested on held-out rankings once, at the end: that is added as `held_out_accuracy`.
    Raises InputError for a missing file, and one that names the line for what is no JSON or has no step.
    """
    records = checkpoint.lines(METRICS)
    for number, record in enumerate(records, 1):
        if type(record.get("step")) is not int:
            raise InputError(f"{checkpoint.path / METRICS}, line {number}: no field 'step' that is a whole number")
    if checkpoint.stage == "reward" and "accuracy" in checkpoint.figures:
        records.append({"step": checkpoint.record["steps"], "held_out_accuracy": checkpoint.figures["accuracy"]})
    return sorted(records, key=lambda record: record["step"])


def points(records: list[Record], name: str) -> Points:
    """(step, value) of every record that logs `name` as a finite number."""
    return [
        (record["step"], float(record[name]))
        for record in records
        if isinstance(record.get(name), int | float) and math.isfinite(record[name])
    ]


def thinned(curve: Points, most: int) -> tuple[Points, int]:
    """At most `most` points, each the mean of as many neighbours as the second value says, at the last one's step."""
    together = max(1, math.ceil(len(curve) / most))
    groups = [curve[start : start + together] for start in range(0, len(curve), together)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups], together
