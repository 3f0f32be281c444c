"""How far a policy has moved from another model, at the tokens of its own answers."""

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from pipeline.inference.decoding import Completion

if TYPE_CHECKING:
    import torch


def next_logprobs(model: Any, prompt: list[int], written: list[list[int]], temperature: float) -> "torch.Tensor":
    """What a model expects at every token of several answers to one prompt. [answers, longest, vocabulary], in nats"""
    import torch

    longest = max(1, *map(len, written))
    # Padding comes last, where no token sees it, and is not counted.
    tokens = torch.tensor([prompt + row + [0] * (longest - len(row)) for row in written], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=tokens[:, :-1], logits_to_keep=longest).logits
        return (logits.float() / temperature).log_softmax(-1)


def divergence(policy: "torch.Tensor", other: "torch.Tensor", written: list[list[int]]) -> list[float]:
    """KL(policy || other) in nats, summed over the tokens of each answer, from `next_logprobs` of both.

    At every token the divergence of the two distributions is taken exactly, which is the same in expectation as
    the difference of the log-probabilities of the answer, with less noise.
    """
    import torch

    steps = range(policy.shape[1])
    counted = torch.tensor([[step < len(row) for step in steps] for row in written], device=policy.device)
    return ((policy.exp() * (policy - other)).sum(-1) * counted).sum(-1).tolist()


def divergence_from_start(
    policy: Any, prompts: Sequence[list[int]], completions: Sequence[Completion], end: int, temperature: float
) -> float:
    """Mean KL in nats an answer of a policy with an adapter from the model below it, at the policy's own answers.

    `end` is the token that a finished answer ends with; temperature is that of sampling.
    """
    sums: list[float] = []
    for prompt, completion in zip(prompts, completions, strict=True):
        written = [completion.tokens + [end] * completion.stopped]
        moved = next_logprobs(policy, prompt, written, temperature)
        with policy.disable_adapter():
            start = next_logprobs(policy, prompt, written, temperature)
        sums += divergence(moved, start, written)
    return fmean(sums)
