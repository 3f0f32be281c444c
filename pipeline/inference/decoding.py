"""How a model's next-token distribution becomes text: batched, seeded, one step at a time.

In place of `generate`: here a row's randomness is its own, a caller sees every step as it happens and
stops by closing the iterator, and each step is cheaper.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import InputError

if TYPE_CHECKING:
    import torch

HOTTEST = 100.0  # temperature: all tokens are equally likely long before
# Below these float32 divides by zero, or keeps no token; they take the likeliest token already.
COLDEST, NARROWEST = 1e-3, 1e-6


@dataclass(frozen=True)
class Decoding:
    """How to choose the next token.

    `temperature` 0 takes the likeliest token; above, tokens are drawn from the tempered distribution,
    cut to its nucleus, the likeliest tokens that together hold `top_p` of the probability
    (Holtzman et al. 2019, arXiv:1904.09751). Raises InputError for a setting that has no meaning.
    """

    max_new_tokens: int = 96
    temperature: float = 0.7
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not whole(self.max_new_tokens) or self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens is {self.max_new_tokens!r:.60}; it must be a whole number of at least 1")
        if not number(self.temperature) or not 0 <= self.temperature <= HOTTEST:
            raise InputError(f"temperature is {self.temperature!r:.60}; it must be a number from 0 to {HOTTEST:g}")
        if not number(self.top_p) or not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p!r:.60}; it must be a number above 0 and at most 1")
        if not whole(self.seed):
            raise InputError(f"seed is {self.seed!r:.60}; it must be a whole number")


def whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def number(value: object) -> bool:
    return whole(value) or (isinstance(value, float) and math.isfinite(value))


@dataclass(frozen=True)
class Completion:
    """What a model wrote after a prompt: the tokens before the stop token, and whether it came to one."""

    tokens: list[int]
    stopped: bool


def decode(
    model: Any,
    prompts: list[list[int]],
    decoding: Decoding,
    stop: list[int],
    seeds: Sequence[int] | None = None,
) -> Iterator[list[int | None]]:
    """Continue all prompts together; yields one list a step: the new token of each prompt, None once it has ended.

    A row ends with a token of `stop` (which is yielded), after `max_new_tokens`, or when the model's
    context is full. Its draws come from the seed and its own prompt: the same prompt gives the same
    continuation whatever else is in the batch (up to floating-point rounding), and the global random
    state is left alone. `seeds`, one a row, stand in for `decoding.seed`: so one prompt can be sampled
    several times in one batch, each row as if it were alone with its seed.

    Works for a causal language model of `transformers` (or `peft` around one) on any device. A model
    in training mode is put in evaluation mode until the iterator is exhausted or closed.
    Raises ValueError for a prompt without tokens, or if there are not as many seeds as prompts.
    """
    import torch

    from pipeline.inference.cache import roomy_cache

    if not all(prompts):
        raise ValueError("a prompt needs at least one token")
    seeds = [decoding.seed] * len(prompts) if seeds is None else seeds
    if len(seeds) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts need as many seeds, not {len(seeds)}")
    context = model.config.get_text_config().max_position_embeddings
    room = [min(decoding.max_new_tokens, context - len(prompt)) for prompt in prompts]
    rows = [row for row in range(len(prompts)) if room[row] > 0]
    if not rows:
        return
    tokens, mask, positions = left_padded([prompts[row] for row in rows], model.device)
    most = min(decoding.max_new_tokens, context)
    draws = torch.stack([uniform(seeds[row], prompts[row], most) for row in rows]).to(model.device)
    cache = roomy_cache(model.config)
    going = set(rows)
    training = model.training
    model.eval()
    try:
        for step in range(decoding.max_new_tokens):
            # Not around the yield: the caller's code must not run in inference mode.
            with torch.inference_mode():
                tokens = choose(next_logits(model, tokens, mask, positions, cache), decoding, draws[:, step])
            news: list[int | None] = [None] * len(prompts)
            for row, token in zip(rows, tokens.tolist(), strict=True):
                if row in going:
                    news[row] = token
                    if token in stop or step + 1 == room[row]:
                        going.remove(row)
            yield news
            if not going:
                return
            with torch.inference_mode():
                # Ended rows are computed along until a quarter has ended: dropping copies the cache.
                if len(going) <= 0.75 * len(rows):
                    kept = torch.tensor([place for place, row in enumerate(rows) if row in going])
                    rows = [row for row in rows if row in going]
                    kept = kept.to(model.device)
                    tokens, mask, positions, draws = tokens[kept], mask[kept], positions[kept], draws[kept]
                    cache.batch_select_indices(kept)
                tokens = tokens[:, None]
                mask = torch.nn.functional.pad(mask, (0, 1), value=1)
                positions = positions[:, -1:] + 1
    finally:
        model.train(training)


def complete(
    model: Any, prompts: list[list[int]], decoding: Decoding, stop: list[int], batch_size: int = 64
) -> list[Completion]:
    """Continue many prompts, at most `batch_size` at a time, and return the completions in their order.

    See `decode` for what a row's completion depends on.
    """
    return [ended(tokens, stop) for tokens in continuations(model, prompts, decoding, stop, batch_size=batch_size)]


def continuations(
    model: Any,
    prompts: list[list[int]],
    decoding: Decoding,
    stop: list[int],
    seeds: Sequence[int] | None = None,
    batch_size: int = 64,
) -> list[list[int]]:
    """What was written after each of many prompts, with the stop token where it came to one.

    Prompts of similar length run together, which leaves little padding. `seeds` as in `decode`.
    """
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    written: list[list[int]] = [[] for _ in prompts]
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        own = seeds and [seeds[index] for index in batch]
        for news in decode(model, [prompts[index] for index in batch], decoding, stop, own):
            for index, token in zip(batch, news, strict=True):
                if token is not None:
                    written[index].append(token)
    return written


def ended(tokens: list[int], stop: list[int]) -> Completion:
    """A row's tokens as a completion, without the stop token if it came to one."""
    stopped = bool(tokens) and tokens[-1] in stop
    return Completion(tokens[:-1] if stopped else tokens, stopped)


def next_logits(
    model: Any, tokens: "torch.Tensor", mask: "torch.Tensor", positions: "torch.Tensor", cache: Any
) -> "torch.Tensor":
    """What the model says comes next, after tokens that the cache does not hold yet. [rows, vocabulary]"""
    output = model(
        input_ids=tokens,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return output.logits[:, -1]


def left_padded(
    prompts: list[list[int]], device: "torch.device"
) -> tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]:
    """Tokens, attention mask and positions of a batch of prompts, each [rows, longest]."""
    import torch

    longest = max(len(prompt) for prompt in prompts)
    # Any token can pad: the mask hides it.
    tokens = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    return tokens, mask, (mask.cumsum(-1) - 1).clamp(min=0)


def uniform(seed: int, prompt: list[int], steps: int) -> "torch.Tensor":
    """One number in [0, 1) for each step of a row, from its seed and its prompt. [steps]"""
    import torch

    digest = hashlib.sha256(json.dumps([seed, prompt]).encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], signed=True))
    return torch.rand(steps, generator=generator, dtype=torch.float64)


def choose(logits: "torch.Tensor", decoding: Decoding, draws: "torch.Tensor") -> "torch.Tensor":
    """The next token of each row from its logits [rows, vocabulary] and its draw [rows]."""
    import torch

    if decoding.temperature == 0:
        return logits.argmax(-1)
    probabilities = (logits.float() / max(decoding.temperature, COLDEST)).softmax(-1)
    if decoding.top_p < 1:
        ordered, tokens = probabilities.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered
        outside = before >= max(decoding.top_p, NARROWEST)
        probabilities = probabilities.scatter(-1, tokens, ordered.masked_fill(outside, 0))
    # Inverse of the cumulative distribution, in double precision so that large vocabularies stay exact.
    cumulative = probabilities.double().cumsum(-1)
    thresholds = draws[:, None] * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, thresholds, right=True)[:, 0]
    return tokens.clamp(max=logits.shape[-1] - 1)
