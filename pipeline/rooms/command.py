"""What the command line does for a room: the same as the page, with a bar for the progress."""

import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipeline.checkpoint import Family
from pipeline.inference.compare import read_lines
from pipeline.rooms.labels import read_labels
from pipeline.rooms.policy import move
from pipeline.rooms.push import Push
from pipeline.rooms.reward import retrain
from pipeline.training import FIXED_PROMPTS


class Bar:
    """A progress bar that is told of each step, and shows what the policy says now."""

    def __init__(self, name: str) -> None:
        self.bar: tqdm[Any] = tqdm(desc=name, unit="step")

    def __call__(self, told: dict[str, Any]) -> None:
        for answer in told.get("answers", []):
            tqdm.write(f"    {answer['prompt']}  ->  {' / '.join(answer['text'].splitlines())}", file=sys.stderr)
        if "check" not in told:
            self.bar.total = told["steps"]
            figures = {name: f"{value:.3f}" for name, value in told.items() if name not in ("step", "steps")}
            self.bar.set_postfix(figures)
            self.bar.update(told["step"] - self.bar.n)


def retrain_reward(family: Family, labels: Path, room: Family) -> None:
    checkpoint = retrain(family, read_labels(labels), room, Bar("reward"))
    figures = checkpoint.figures
    for name, pairs in (("room", figures["room_test_pairs"]), ("original", figures["original_test_pairs"])):
        before, after = (written(figures[when][name]) for when in ("before", "after"))
        print(f"{name}'s held-out pairs ordered right: {before} before, {after} after, of {pairs}")
    print(f"written: {checkpoint.path}")


def move_policy(
    family: Family, reward: Path, prompts: Path | None, room: Family, start: str, steps: int, kl: float
) -> None:
    lines = read_lines(prompts, {"prompt": (str,)}) if prompts else []
    asked = [line["prompt"] for line in lines] or FIXED_PROMPTS
    adapter = Family(reward.parent if reward.name == "reward" else reward)
    checkpoint = move(family, adapter, asked, Push(start, steps, kl), room, Bar("rlhf"))
    before, after = checkpoint.figures["before"], checkpoint.figures["after"]
    for name, unit in (("reward", ""), ("kl", " nats an answer"), ("length", " tokens")):
        print(f"{name}: {before[name]:.2f} before, {after[name]:.2f} after{unit}")
    print(f"written: {checkpoint.path}")


def written(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.0f} %"
