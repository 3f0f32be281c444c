"""The adapters of a room, ready to score and to answer: they lie beside its votes and on top of a family."""

from typing import Any

from pipeline.checkpoint import WEIGHTS, Checkpoint, Family
from pipeline.errors import InputError
from pipeline.inference.models import RewardModel, StageModel, load_reward, load_stage


def reward_of(family: Family, room: Family) -> RewardModel:
    """The family's reward model as a room's votes have changed it. Raises InputError if it is not of this family."""
    adapter, parent = checked(family, room, "reward")
    model = load_reward(parent)
    return RewardModel(merged(model.model, adapter), model.tokenizer, adapter.figures["offset"])


def policy_of(family: Family, room: Family) -> StageModel:
    """The policy as a room has moved it. Raises InputError if it is not of this family."""
    adapter, parent = checked(family, room, "rlhf")
    model = load_stage(parent)
    return StageModel("rlhf", merged(model.model, adapter), model.tokenizer)


def checked(family: Family, room: Family, stage: str) -> tuple[Checkpoint, Checkpoint]:
    """A room's verified adapter, and the checkpoint of the family that it was trained on."""
    adapter = room.checkpoint(stage)
    origin = adapter.record["parent"]
    parent = family.checkpoint(origin["stage"])
    if parent.record["files"].get(WEIGHTS) != origin["weights"]:
        raise InputError(f"{adapter.path} was trained on another family than {family.path}; train it again")
    return adapter, parent


def merged(model: Any, adapter: Checkpoint) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(adapter.path)).merge_and_unload().eval()
