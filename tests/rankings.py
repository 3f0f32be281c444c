"""Rankings that a model of random weights can learn from, and runs that are cut short."""

import json
import random
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from pipeline.checkpoint import RECORD, Family, sha256, write_json_lines, write_record, writing
from pipeline.recipe import Recipe, load_recipe
from tests.families import random_family

BETTER = ["Oranges and kiwis are rich in vitamin C.", "I do not know how the weather is today."]
WORSE = ["banks banks banks keep money", "What is the What is the What", "Call coughing at"]


def ranked_family(path: Path, prompts: int = 40) -> Family:
    """Random base and SFT checkpoints, and rankings in which whole sentences stand above broken ones."""
    family = random_family(path, ("base", "sft"))
    write_json_lines(path / "sft" / "samples.jsonl", [sample(0, "banks"), sample(8, BETTER[0]), sample(8, WORSE[0])])
    with writing(path / "ranking") as folder:
        write_json_lines(folder / "rankings.jsonl", [ranking(number) for number in range(prompts)])
        write_record(
            folder,
            "ranking",
            load_recipe("nano"),
            corpus="none",
            parent=family.checkpoint("sft"),
            steps=0,
            seconds=0.0,
            figures={},
        )
    return family


def ranking(number: int) -> dict[str, Any]:
    draw = random.Random(number)
    better, worse = draw.choice(BETTER), draw.sample(WORSE, 2)
    return {
        "id": str(number),
        "prompt": f"Question {number}?",
        "kind": draw.choice(["fact", "realtime"]),
        "answers": [
            answer(better, 1, "good"),
            answer(worse[0], 2, "sft"),
            answer(worse[1], 3, "sft", stopped=False),
            answer(worse[1] + " it", 3, "bad"),
        ],
        "annotator": "simulated",
        "split": "test" if number % 4 == 0 else "train",
    }


def answer(text: str, rank: int, source: str, stopped: bool = True) -> dict[str, Any]:
    return {"text": text, "stopped": stopped, "source": source, "rank": rank, "grade": None}


def sample(step: int, text: str) -> dict[str, Any]:
    return {"step": step, "prompt": "Question?", "text": text, "tokens": 9, "stopped": True}


def rehash(file: Path) -> None:
    """Make `stage.json` agree with a file of the checkpoint that was changed on purpose."""
    record = json.loads((file.parent / RECORD).read_text())
    record["files"][file.name] = sha256(file)
    (file.parent / RECORD).write_text(json.dumps(record))


def small(recipe: Recipe, stage: str, **changes: Any) -> Recipe:
    """The recipe with other settings for one stage."""
    return recipe.model_copy(update={stage: getattr(recipe, stage).model_copy(update=changes)})


class Interrupted(Exception):
    """Stands for the signal that ends a run."""


class StopAt(TrainerCallback):
    """Cuts a run short after a step; `first` is the first step that it saw."""

    def __init__(self, step: int | None = None) -> None:
        self.step = step
        self.first: int | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.first = self.first or state.global_step
        if state.global_step == self.step:
            raise Interrupted
