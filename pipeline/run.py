"""Trains a family: the stages of one recipe, in order, each going on where an earlier run was stopped."""

import fcntl
import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

import yaml

from pipeline import processes
from pipeline.checkpoint import STAGES, Checkpoint, Family, write_whole
from pipeline.corpus.cards import load_corpus
from pipeline.errors import InputError
from pipeline.recipe import PretrainedSettings, Recipe

# What a family was trained from, in the family's folder: later commands need its splits.
RECIPE = "recipe.yaml"
PURPOSE = {
    "tokenizer": "learns a vocabulary from the documents",
    "base": "learns to predict the next word",
    "pretrained": "has learned that elsewhere, and comes from the Hub",
    "sft": "learns to answer, from demonstrations",
    "ranking": "answers prompts several times over; the annotator ranks the answers",
    "reward": "learns which answers annotators prefer",
    "rlhf": "learns to give answers that the reward model prefers",
    "dpo": "learns the same preference without a reward model",
}


def run_all(recipe: Recipe, family: Family, until: str | None = None) -> None:
    """Train every stage that is not finished, in order, up to and including `until`.

    Raises InputError when the family was trained with another recipe or corpus, or is being trained now.
    """
    stages = stages_until(recipe, until)
    corpus = load_corpus(recipe.corpus).sha256
    with sole_run(family):
        finished = [stage for stage in stages if is_finished(stage, recipe, family)]
        for stage in finished:
            check_origin(recipe, corpus, family.checkpoint(stage))
        for stage in stages:
            if stage in finished:
                say(f"{stage}: finished already")
            else:
                train(stage, recipe, corpus, family)


def stages_of(recipe: Recipe) -> list[str]:
    """The stages that a recipe trains, in order: a pretrained base has its tokenizer already."""
    return [stage for stage in STAGES if stage != "tokenizer" or recipe.tokenizer]


def stages_until(recipe: Recipe, until: str | None) -> list[str]:
    """Those up to and including `until`; all without it."""
    last = STAGES.index(until) if until else len(STAGES)
    return [stage for stage in stages_of(recipe) if STAGES.index(stage) <= last]


def run_stage(stage: str, recipe: Recipe, family: Family) -> None:
    """Train one stage, again if it is finished already. Raises InputError as `run_all` does."""
    if stage not in stages_of(recipe):
        raise InputError(f"the recipe {recipe.name!r} has no {stage} stage: its base is pretrained")
    corpus = load_corpus(recipe.corpus).sha256
    with sole_run(family):
        train(stage, recipe, corpus, family)


def train(stage: str, recipe: Recipe, corpus: str, family: Family) -> None:
    """Run one stage and say what it does, how long it took and what came out."""
    module = module_of(stage, recipe)
    for part in periods_to_train(recipe, family) if stage == "base" else [recipe]:
        if processes.is_main():
            begin(stage, part, corpus, family)
            write_whole(family.path / RECIPE, yaml.safe_dump(recipe.model_dump(), sort_keys=False, allow_unicode=True))
        say(f"{stage}: {PURPOSE[module]}")
        processes.wait()
        checkpoint = importlib.import_module(f"pipeline.stages.{module}").run(part, family)
        seconds = f"{checkpoint.record['seconds']:.0f} seconds"
        named = checkpoint.figures.items()
        figures = [f"{name} {value:.4g}" for name, value in named if isinstance(value, int | float)]
        say(f"{stage}: " + ", ".join([seconds, *figures]))


def say(line: str) -> None:
    """Once, however many processes train."""
    if processes.is_main():
        print(line, flush=True)


def module_of(stage: str, recipe: Recipe) -> str:
    """The module in `pipeline/stages/` that makes a stage."""
    return "pretrained" if stage == "base" and isinstance(recipe.base, PretrainedSettings) else stage


def periods_to_train(recipe: Recipe, family: Family) -> list[Recipe]:
    """The recipe as it stands at each period of the base stage that the family's checkpoint lacks."""
    if isinstance(recipe.base, PretrainedSettings):
        return [recipe]
    first, last = finished_periods(recipe, family) + 1, len(recipe.base.periods)
    return [recipe.until_period(number) for number in range(first, last + 1)]


def finished_periods(recipe: Recipe, family: Family) -> int:
    """How many periods, if not all, the family's base has behind it; 0 if it is of another recipe.

    A corpus may grow between two periods.
    """
    if not family.has("base") or isinstance(recipe.base, PretrainedSettings):
        return 0
    digest = family.checkpoint("base").record["recipe"]["sha256"]
    counts = range(1, len(recipe.base.periods))
    return next((count for count in counts if recipe.until_period(count).digest("base") == digest), 0)


def begin(stage: str, recipe: Recipe, corpus: str, family: Family) -> None:
    """Note what a stage is made from. Raises InputError if it was stopped half-way with something else."""
    work = family.work(stage)
    note = work / "origin.json"
    origin = {"recipe": recipe.digest(stage), "corpus": corpus}
    half_way = any(file != note for file in work.iterdir())
    if half_way and note.is_file() and json.loads(note.read_text(encoding="utf-8")) != origin:
        raise InputError(
            f"{work} holds an unfinished {stage} stage of another recipe or corpus; "
            "use another --out or delete that folder"
        )
    write_whole(note, json.dumps(origin))


def is_finished(stage: str, recipe: Recipe, family: Family) -> bool:
    """Whether a stage is trained; a base stage that lacks a period of the recipe is not."""
    return family.has(stage) and not (stage == "base" and finished_periods(recipe, family))


def check_origin(recipe: Recipe, corpus: str, checkpoint: Checkpoint) -> None:
    """Raise InputError if a finished stage was trained with another recipe or another corpus."""
    for what, sha256 in (("recipe", recipe.digest(checkpoint.stage)), ("corpus", corpus)):
        if checkpoint.record[what]["sha256"] != sha256:
            raise InputError(
                f"{checkpoint.path} was trained with another {what}; use another --out or delete that folder"
            )


@contextmanager
def sole_run(family: Family) -> Iterator[None]:
    """Hold the family's lock, which ends with the process. Raises InputError if another run holds it.

    Of several processes that train together the main one holds it for all.
    """
    if not processes.is_main():
        yield
        return
    work = family.path / ".work"
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"another run is training {family.path}; wait for it or use another --out") from error
        yield
