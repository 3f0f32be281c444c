"""How fast answers are sampled for rankings and RLHF, beside `generate` as TRL calls it, in the same run.

Greedy answers of both must be the same, token for token. Where a step of RLHF goes is read from what the
family's own training has logged.
"""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.chat_format import encode_prompt, stop_tokens
from pipeline.checkpoint import Family
from pipeline.corpus.cards import load_corpus
from pipeline.corpus.ranking_prompts import policy_prompts
from pipeline.inference.decoding import Decoding, complete, left_padded
from pipeline.recipe import RlhfSettings, load_recipe
from pipeline.run import RECIPE
from tests.bench.figures import Measured

ROUNDS = 3
Completions = list[list[int]]


def measure(family: Path) -> list[Measured]:
    """Tokens per second of both ways, of SFT in batches as RLHF samples them; and the parts of a step."""
    recipe = load_recipe(str(family / RECIPE))
    folder = Family(family).checkpoint("sft").path
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    encoded = [encode_prompt(tokenizer, each.prompt) for each in policy_prompts(load_corpus(recipe.corpus), recipe)]
    stop, settings = stop_tokens(tokenizer), recipe.rlhf

    def ours(prompts: Completions, temperature: float) -> Completions:
        completions = complete(model, prompts, Decoding(settings.max_new_tokens, temperature), stop)
        return [each.tokens for each in completions]

    def trl(prompts: Completions, temperature: float) -> Completions:
        return generated(model, prompts, settings, temperature, stop, tokenizer.pad_token_id)

    # Of a prompt's whole group, as in training.
    batches = [
        [prompt for prompt in encoded[start : start + settings.prompts_per_step] for _ in range(settings.group_size)]
        for start in range(0, ROUNDS * settings.prompts_per_step, settings.prompts_per_step)
    ]
    alone = encoded[: 8 * settings.prompts_per_step]
    same = [one == other for one, other in zip(ours(alone, 0), trl(alone, 0), strict=True)]
    speeds = {way: [tokens_per_second(way, batch, settings.temperature) for batch in batches] for way in (ours, trl)}
    return [
        Measured("sampling", median(speeds[ours]), "tokens/s"),
        Measured("generate, as TRL calls it", median(speeds[trl]), "tokens/s"),
        Measured("sampling / generate", median(speeds[ours]) / median(speeds[trl]), at_least=3),
        Measured("greedy answers that are the same", sum(same) / len(same), at_least=1),
        *parts_of_a_step(family),
    ]


def generated(
    model: Any, prompts: Completions, settings: RlhfSettings, temperature: float, stop: list[int], padding: int
) -> Completions:
    tokens, mask, _ = left_padded(prompts, model.device)
    drawing: dict[str, Any] = {"temperature": temperature, "top_k": 0} if temperature else {}
    with torch.no_grad():
        written = model.generate(
            input_ids=tokens,
            attention_mask=mask,
            max_new_tokens=settings.max_new_tokens,
            do_sample=bool(temperature),
            eos_token_id=stop,
            pad_token_id=padding,
            **drawing,
        )
    return [until(stop, row) for row in written[:, tokens.shape[1] :].tolist()]


def until(stop: list[int], tokens: list[int]) -> list[int]:
    return tokens[: next((place for place, token in enumerate(tokens) if token in stop), len(tokens))]


def tokens_per_second(
    way: Callable[[Completions, float], Completions], prompts: Completions, temperature: float
) -> float:
    start = time.perf_counter()
    written = way(prompts, temperature)
    return sum(map(len, written)) / (time.perf_counter() - start)


def parts_of_a_step(family: Path) -> list[Measured]:
    """Seconds of a step of RLHF as the family's training logged them, on whatever machine that was."""
    logged = [line for line in Family(family).checkpoint("rlhf").lines("metrics.jsonl") if "sampling_seconds" in line]
    parts = {part: median(line[f"{part}_seconds"] for line in logged) for part in ("sampling", "scoring", "update")}
    return [Measured(f"a step of the family's RLHF: {part}", seconds, "s") for part, seconds in parts.items()]
