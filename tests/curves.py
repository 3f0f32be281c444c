"""The curves of a nano family: `python -m tests.curves checkpoints/nano` writes those that the tests compare with.

A package that is upgraded, or a change that was not meant to change training, shows in them. The first stages read the
same numbers on every machine but for rounding; from the rankings on, stages learn from sampled answers, which rounding
changes, so that only their means are comparable.
"""

import json
import sys
from itertools import pairwise
from pathlib import Path
from statistics import fmean

from pipeline.checkpoint import Family, write_whole

FILE = Path(__file__).with_name("curves.json")
# What is followed in each stage.
FOLLOWED = {"base": "loss", "sft": "loss", "reward": "loss", "rlhf": "reward", "dpo": "loss"}
POINTS = 8  # means of so many parts of a curve, from first to last


def curves(family: Family) -> dict[str, list[float]]:
    """For each stage the means over POINTS equal parts of its curve."""
    return {
        stage: parts([line[name] for line in family.checkpoint(stage).lines("metrics.jsonl") if name in line])
        for stage, name in FOLLOWED.items()
    }


def parts(values: list[float]) -> list[float]:
    count = min(POINTS, len(values))
    edges = [round(len(values) * part / count) for part in range(count + 1)]
    return [round(fmean(values[start:end]), 4) for start, end in pairwise(edges)]


if __name__ == "__main__":
    write_whole(FILE, json.dumps(curves(Family(sys.argv[1])), indent=2) + "\n")
