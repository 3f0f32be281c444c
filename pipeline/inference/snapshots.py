"""The policy on its way from SFT to RLHF, ready to answer at every step that was kept."""

import copy
import re
from dataclasses import replace
from threading import Lock
from typing import Any

from pipeline.checkpoint import Checkpoint, Family
from pipeline.errors import InputError
from pipeline.inference.models import StageModel

ADAPTER = re.compile(r"snapshots/step-(\d+)/adapter_model\.safetensors")


class TimeLine:
    """SFT at step 0, the snapshots of RLHF, and the RLHF model at its last step.

    A snapshot is loaded when it is first asked for, and verified before. It shares the SFT model's weights
    and adds its adapter's own; the SFT model itself stays as it is, so all of them may answer at once.
    """

    def __init__(self, family: Family, sft: StageModel, rlhf: StageModel) -> None:
        checkpoint = family.checkpoint("rlhf")
        self.family = family
        self.last = checkpoint.record["steps"]
        self.folders = {step: folder for step, folder in adapters(checkpoint).items() if 0 < step < self.last}
        self.models = {self.last: rlhf, 0: sft}
        self.loading = Lock()

    @property
    def steps(self) -> list[int]:
        return sorted({*self.models, *self.folders})

    def model(self, step: int) -> StageModel:
        """The policy after `step` steps. Raises InputError if it was not kept, or is damaged."""
        with self.loading:
            if step not in self.models:
                self.models[step] = self.load(step)
            return self.models[step]

    def load(self, step: int) -> StageModel:
        from peft import PeftModel

        if step not in self.folders:
            raise InputError(f"no snapshot of step {step}; there are {', '.join(map(str, self.steps))}")
        checkpoint = self.family.checkpoint("rlhf")
        sft = self.models[0]
        policy = PeftModel.from_pretrained(sharing_weights(sft.model), str(checkpoint.path / self.folders[step]))
        # What SFT decodes with has SFT's model in it.
        return replace(sft, stage="rlhf", model=policy.eval(), together=None)


def adapters(checkpoint: Checkpoint) -> dict[int, str]:
    """The steps whose adapters the record of the RLHF stage lists, with their folders in it."""
    found = [(ADAPTER.fullmatch(name), name) for name in checkpoint.record["files"]]
    return {int(match[1]): name.rpartition("/")[0] for match, name in found if match}


def sharing_weights(model: Any) -> Any:
    """A model with the same weights in memory, whose layers can be exchanged without a change to the first."""
    import torch

    shared = {id(weight): torch.nn.Parameter(weight.detach(), requires_grad=False) for weight in model.parameters()}
    return copy.deepcopy(model, shared)
