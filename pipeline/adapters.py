"""Low-rank adapters: what a stage trains when it leaves the weights as they are (Hu et al. 2021, arXiv:2106.09685)."""

from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from pipeline.checkpoint import Checkpoint
from pipeline.precision import in_four_bits, training_precision
from pipeline.recipe import LoraSettings, PretrainedSettings, Recipe


def low_rank(settings: LoraSettings | None, task: str = "CAUSAL_LM", **more: Any) -> LoraConfig | None:
    """An adapter on every linear layer; None, which trains all weights, without settings."""
    if settings is None:
        return None
    return LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules="all-linear", task_type=task, **more)


def four_bit(recipe: Recipe) -> BitsAndBytesConfig | None:
    """How the weights below an adapter are rounded, if the recipe says so (QLoRA, arXiv:2305.14314)."""
    # The head of a reward model is new, and trained whole.
    return in_four_bits(training_precision(), ["lm_head", "score"]) if is_four_bit(recipe) else None


def optimizer(recipe: Recipe) -> dict[str, Any]:
    """Over 4-bit weights an optimiser in 8 bits, which moves to main memory when a GPU is full; it needs a GPU."""
    return {"optim": "paged_adamw_8bit"} if is_four_bit(recipe) and torch.cuda.is_available() else {}


def is_four_bit(recipe: Recipe) -> bool:
    return isinstance(recipe.base, PretrainedSettings) and recipe.base.four_bit


def merged(model: Any, parent: Checkpoint, kind: Any = AutoModelForCausalLM, **more: Any) -> Any:
    """A trained model as a plain one of the same kind: its adapter, if it has one, is added to the parent's weights.

    They are read again, since those below the adapter may be rounded to 4 bits.
    """
    if not isinstance(model, PeftModel):
        return model
    whole = kind.from_pretrained(parent.path, dtype="float32", **more).to(model.device)
    adapted = get_peft_model(whole, model.peft_config["default"])
    set_peft_model_state_dict(adapted, get_peft_model_state_dict(model))
    return adapted.merge_and_unload()
