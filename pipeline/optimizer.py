"""Muon for the hidden matrices, AdamW for everything else, as one optimiser."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from pipeline.precision import training_precision


class MuonWithAdamW(torch.optim.Optimizer):
    """Both optimisers behind the face of one. Muon is meant for matrices inside the network."""

    def __init__(self, model: nn.Module, muon_learning_rate: float, adamw_learning_rate: float) -> None:
        hidden = [weight for name, weight in model.named_parameters() if is_hidden_matrix(name, weight)]
        others = [weight for name, weight in model.named_parameters() if not is_hidden_matrix(name, weight)]
        self.parts: list[torch.optim.Optimizer] = [
            Muon(hidden, muon_learning_rate),
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


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024), its update as large as AdamW's (Liu et al. 2025, arXiv:2502.16982).

    It makes the update of a matrix orthogonal, so that no direction is learned much faster than another;
    a model of a few million parameters needs about half as many tokens for the same loss. `torch.optim.Muon`
    does the same in bfloat16 alone, which many processors multiply far too slowly, and one matrix at a time.
    """

    def __init__(
        self, weights: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.1
    ) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weights in of_one_shape(weight for weight in group["params"] if weight.grad is not None):
                updates = orthogonal(torch.stack([self.momentum(weight, group["momentum"]) for weight in weights]))
                size = 0.2 * max(weights[0].shape) ** 0.5
                for weight, update in zip(weights, updates, strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.add_(update, alpha=-group["lr"] * size)

    def momentum(self, weight: nn.Parameter, share: float) -> torch.Tensor:
        """Nesterov's: the gradient, moved towards the running mean that it has just joined."""
        assert weight.grad is not None
        mean = self.state[weight].setdefault("momentum_buffer", torch.zeros_like(weight))
        mean.lerp_(weight.grad, 1 - share)
        return weight.grad.lerp(mean, share)


def of_one_shape(weights: Iterable[nn.Parameter]) -> Iterable[list[nn.Parameter]]:
    groups: dict[torch.Size, list[nn.Parameter]] = {}
    for weight in weights:
        groups.setdefault(weight.shape, []).append(weight)
    return groups.values()


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """The matrices [count, rows, columns] with all singular values brought near 1.

    Five steps of a Newton-Schulz iteration, whose coefficients are Jordan's: they reach 1 only roughly
    (0.7 to 1.2), which costs nothing, but soon.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    values = (matrices.mT if tall else matrices).to(training_precision())
    values = values / values.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = values @ values.mT
        values = 3.4445 * values + (-4.7750 * gram + 2.0315 * gram @ gram) @ values
    return (values.mT if tall else values).to(matrices.dtype)


def is_hidden_matrix(name: str, weight: nn.Parameter) -> bool:
    return weight.ndim == 2 and "embed" not in name and "lm_head" not in name
