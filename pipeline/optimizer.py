"""Muon for the hidden matrices, AdamW for everything else, as one optimiser."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024; scaled to AdamW's update size as in Liu et al. 2025, arXiv:2502.16982).

    Muon makes the update of a matrix orthogonal, so that no direction is learned much faster than
    another; a model of a few million parameters needs about half as many tokens for the same loss.
    It is meant for matrices inside the network: embeddings and norms get AdamW.
    """

    def __init__(self, model: nn.Module, muon_learning_rate: float, adamw_learning_rate: float) -> None:
        hidden = [weight for name, weight in model.named_parameters() if is_hidden_matrix(name, weight)]
        others = [weight for name, weight in model.named_parameters() if not is_hidden_matrix(name, weight)]
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.Muon(hidden, lr=muon_learning_rate, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=adamw_learning_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
        ]
        super().__init__([group for part in self.parts for group in part.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        # Loading gave the parts new groups; the learning rate schedule must reach those.
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def is_hidden_matrix(name: str, weight: nn.Parameter) -> bool:
    return weight.ndim == 2 and "embed" not in name and "lm_head" not in name
