"""The models of a family, wherever they are: in its folder, on the Hub, or on a server."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pipeline.checkpoint import ANSWERING, Family
from pipeline.inference.models import RewardModel, StageModel, load_reward, load_stage
from pipeline.published import NoSafetensors, PublishedFamily

if TYPE_CHECKING:
    from pipeline.inference.served import ServedStage


def answering_models(
    family: Family | PublishedFamily, tell: Callable[[str], object]
) -> "Iterator[tuple[str, StageModel | ServedStage]]":
    """Each stage that answers with its model, which is loaded when its turn comes.

    A published stage without safetensors is left out, and `tell` gets a line about it. Raises InputError for what
    is missing, private or damaged.
    """
    for stage in answering_stages(family):
        try:
            model = answering_model(family, stage)
        except NoSafetensors as error:
            tell(f"{stage} is left out: {error}")
        else:
            yield stage, model


def answering_stages(family: Family | PublishedFamily) -> list[str]:
    if isinstance(family, PublishedFamily):
        return family.answering
    return [stage for stage in ANSWERING if family.has(stage)]


def answering_model(family: Family | PublishedFamily, stage: str) -> "StageModel | ServedStage":
    """The model of one stage. Raises InputError if the family has none that can be loaded or reached."""
    if isinstance(family, Family):
        return load_stage(family.checkpoint(stage))
    place = family.place(stage)
    if place.endpoint:
        from pipeline.inference.served import reach

        return reach(place, stage)
    from pipeline.inference.published import load_published

    return load_published(place, stage, family.bits)


def reward_model(family: Family | PublishedFamily) -> RewardModel:
    """The family's reward model. Raises InputError if it has none that can be loaded."""
    if isinstance(family, Family):
        return load_reward(family.checkpoint("reward"))
    from pipeline.inference.published import load_published_reward

    return load_published_reward(family.place("reward"), family.bits)
