"""What the 8 bits of the browser edition change in the report card."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pipeline.checkpoint import Family
from pipeline.corpus.cards import load_corpus
from pipeline.inference.models import RewardModel, StageModel, load_reward, load_stage
from pipeline.publish.graph import round_weights
from pipeline.publish.web import STAGES
from pipeline.recipe import Recipe, load_recipe
from pipeline.report.behaviour import figures
from pipeline.report.card import answered, fitting
from pipeline.report.figures import Figure
from pipeline.report.markdown import LABELS
from pipeline.report.preference import comparison_figures, comparisons_by_source
from pipeline.report.prompts import Probe, probes
from pipeline.run import RECIPE

ANSWERING = [stage for stage in STAGES if stage != "reward"]
MOST = 1.0  # percentage points that a share may change by
Measured = Mapping[str, Sequence[Figure]]


def differences(family: Family, prompts_each: int) -> str:
    """The shares of greedy answers, and of the reward model's choices, that change when weights have 8 bits.

    Measured as in the report card, with the weights as they are and as the browser computes with them. Raises
    InputError for a missing or damaged stage.
    """
    recipe = load_recipe(str(family.path / RECIPE))
    models = {stage: in_full(load_stage(family.checkpoint(stage))) for stage in ANSWERING}
    reward = load_reward(family.checkpoint("reward"))
    asked = fitting(probes(load_corpus(recipe.corpus), recipe, prompts_each), models["base"])
    exact = measured(family, recipe, models, reward, asked)
    for model in [*(stage.model for stage in models.values()), reward.model]:
        round_weights(model)
    return table(exact, measured(family, recipe, models, reward, asked))


def in_full(stage: StageModel) -> StageModel:
    """In 32 bits, as browsers compute; on a GPU stages are loaded in 16."""
    return replace(stage, model=stage.model.float())


def measured(
    family: Family, recipe: Recipe, models: Mapping[str, StageModel], reward: RewardModel, asked: Sequence[Probe]
) -> Measured:
    found = {stage: figures(answered(model, reward, asked)) for stage, model in models.items()}
    compared = comparisons_by_source(reward, family, recipe, asked)
    return found | {"reward": [each for name, pairs in compared.items() for each in comparison_figures(name, pairs)]}


def table(exact: Measured, rounded: Measured) -> str:
    """The shares that differ, and whether the largest difference is small enough."""
    afterwards = {(stage, figure.name): figure for stage, found in rounded.items() for figure in found}
    shares = [(stage, figure) for stage, found in exact.items() for figure in found if figure.unit == "share"]
    pairs = [
        (100 * abs(after.value - before.value), f"{before.name}, {LABELS[stage]}", before, after)
        for stage, before in shares
        if (after := afterwards.get((stage, before.name)))
    ]
    changed = [pair for pair in pairs if pair[0] > 0]
    lines = ["| share | 32 bits | 8 bits | points |", "|---|---|---|---|"]
    lines += [f"| {name} | {before} | {after} | {points:.1f} |" for points, name, before, after in changed]
    largest = max(points for points, *_ in pairs)
    verdict = "8 bits will do" if largest <= MOST else "publish with --bits 32"
    lines += ["", f"{len(changed)} of {len(pairs)} shares change, by {largest:.1f} points at most: {verdict}."]
    return "\n".join(lines)
