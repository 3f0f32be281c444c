"""How fast the base stage trains, beside the same model trained in two other ways in the same run.

One is transformers' `Trainer` as it comes. The other is a loop in the manner of nanoGPT (Karpathy 2022): a compiled
model, one batch after the other, AdamW. All read the same blocks of the same documents.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AutoTokenizer, LlamaForCausalLM, Trainer, TrainingArguments

from pipeline.checkpoint import Family
from pipeline.corpus.cards import load_corpus
from pipeline.precision import training_precision
from pipeline.recipe import BaseSettings, Recipe, load_recipe
from pipeline.run import run_stage
from pipeline.stages.base import Blocks, Speed, model_config, packed_blocks
from tests.bench.figures import Measured

STEPS = 24  # of each; the first ones compile


def measure(family: Path) -> list[Measured]:
    """Tokens per second of the three, of a model of the family's size."""
    recipe = load_recipe("tiny")
    assert isinstance(recipe.base, BaseSettings)
    tokens = STEPS * recipe.base.batch_size * recipe.context
    base = recipe.base.model_copy(update={"tokens": tokens, "save_every": STEPS // 3, "sample_every": tokens})
    corpus = recipe.corpus.model_copy(update={"sources": []})
    recipe = recipe.model_copy(update={"base": base, "corpus": corpus})
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tokenizer").symlink_to((family / "tokenizer").absolute())
        run_stage("base", recipe, Family(Path(folder)))
        ours = Family(Path(folder)).checkpoint("base").figures
        tokenizer = AutoTokenizer.from_pretrained(family / "tokenizer")
        blocks = blocks_of(recipe, Family(Path(folder)), tokenizer)
        plain = plain_speed(recipe, blocks, tokenizer, Path(folder))
        compiled = compiled_speed(recipe, blocks)
    return [
        Measured("base stage", ours["tokens_per_second"], "tokens/s"),
        Measured("share of the machine's matrix rate", ours["share_of_matrix_rate"], at_least=0.6),
        Measured("matrix rate", ours["matrix_gigaflops_per_second"], "GFLOP/s"),
        Measured("plain Trainer", plain, "tokens/s"),
        Measured("compiled loop", compiled, "tokens/s"),
        Measured("base stage / plain Trainer", ours["tokens_per_second"] / plain, at_least=1),
        Measured("base stage / compiled loop", ours["tokens_per_second"] / compiled, at_least=1),
    ]


def blocks_of(recipe: Recipe, family: Family, tokenizer: Any) -> Any:
    """What the stage has read, once more: it keeps nothing that it needed to resume."""
    assert isinstance(recipe.base, BaseSettings)
    count = STEPS * recipe.base.batch_size
    return packed_blocks(recipe, family, load_corpus(recipe.corpus), tokenizer, family.path / "blocks.npy", count)


def plain_speed(recipe: Recipe, blocks: Any, tokenizer: Any, folder: Path) -> float:
    """transformers' Trainer with its own settings for everything."""
    speed = Speed(folder / "plain")
    arguments = TrainingArguments(
        str(folder / "plain"), max_steps=STEPS, report_to="none", save_strategy="no", disable_tqdm=True
    )

    class Labelled(Blocks):
        def __getitem__(self, index: int) -> dict[str, Any]:
            row = super().__getitem__(index)
            return row | {"labels": row["input_ids"]}

    model = LlamaForCausalLM(model_config(recipe, tokenizer))
    Trainer(model=model, args=arguments, train_dataset=Labelled(blocks), callbacks=[speed]).train()
    return arguments.per_device_train_batch_size * recipe.context / median(speed.step_seconds)


def compiled_speed(recipe: Recipe, blocks: Any) -> float:
    """A loop in the manner of nanoGPT."""
    assert isinstance(recipe.base, BaseSettings)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = GPT(recipe).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), fused=True)
    compiled: Any = torch.compile(model)
    seconds = []
    for batch in batches(blocks, recipe.base.batch_size):
        start = time.perf_counter()
        with torch.autocast(device, dtype=torch.bfloat16, enabled=training_precision() is torch.bfloat16):
            loss = compiled(batch.to(device))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        seconds.append(time.perf_counter() - start)
    return recipe.base.batch_size * recipe.context / median(seconds)


def batches(blocks: Any, size: int) -> Iterator[torch.Tensor]:
    for start in range(0, STEPS * size, size):
        yield torch.from_numpy(blocks[start : start + size].astype("int64"))


class GPT(nn.Module):
    """A GPT-2 of the recipe's width and depth; its feed-forward is as wide as a GPT-2's, four times the rest."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        assert recipe.model
        assert recipe.tokenizer
        width = recipe.model.hidden_size
        self.tokens = nn.Embedding(recipe.tokenizer.vocabulary_size, width)
        self.positions = nn.Embedding(recipe.context, width)
        self.layers = nn.ModuleList(Layer(width, recipe.model.heads) for _ in range(recipe.model.layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """The loss of tokens [rows, length]."""
        hidden = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        for layer in self.layers:
            hidden = layer(hidden)
        logits = functional.linear(self.norm(hidden), self.tokens.weight)
        return functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), tokens[:, 1:].flatten())


class Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend, self.attended = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        rows, length, width = hidden.shape
        heads = self.attend(self.before(hidden)).view(rows, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        queries, keys, values = heads
        attended = functional.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        hidden = hidden + self.attended(attended.transpose(1, 2).reshape(rows, length, width))
        return hidden + self.narrow(functional.gelu(self.widen(self.between(hidden))))
