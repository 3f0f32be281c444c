"""Base: pre-training.

A transformer that starts from random numbers reads millions of words and learns one thing: which token
comes next. To guess well it has to pick up spelling, grammar and a good deal of the world, for the
capital of France is whatever usually follows "The capital of France is". It has seen many forms of text,
and nobody has told it that a question wants an answer: after one question it goes on with the next, as
question papers do, or with anything else that might stand there. It does not know when to stop, what is
true, or what is harmful.
"""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from pipeline import processes
from pipeline.chat_format import END_OF_DOCUMENT
from pipeline.checkpoint import Checkpoint, Family, write_whole
from pipeline.corpus.cards import Corpus, load_corpus
from pipeline.corpus.cleaning import clean
from pipeline.corpus.documents import documents
from pipeline.optimizer import MuonWithAdamW
from pipeline.precision import matrix_rate
from pipeline.recipe import BaseSettings, Recipe
from pipeline.training import (
    Clock,
    Progress,
    Samples,
    StopOnNaN,
    finish,
    keep_memory,
    metrics,
    resume,
    trainer_arguments,
)

DOCUMENTS_AT_ONCE = 1000
IGNORED = -100


def run(recipe: Recipe, family: Family) -> Checkpoint:
    """Train a Llama-architecture model on packed documents, from random initialisation or the period before.

    In each period the learning rate rises, stays and decays (Hu et al. 2024, arXiv:2404.06395), so that each
    ends with a model that can be used. With `last_rate` the last one decays from its beginning: at the full rate
    what the decay before it has made would be lost. This trains the last period of the recipe, with the documents
    that come next. Raises InputError when there is an earlier one and it is not trained yet.
    """
    keep_memory()
    settings = recipe.base
    assert isinstance(settings, BaseSettings)
    tokenizer: Any = AutoTokenizer.from_pretrained(family.checkpoint("tokenizer").path)
    corpus = load_corpus(recipe.corpus)
    work = family.work("base")
    clock = Clock(work)
    *read, steps = [tokens // (settings.batch_size * recipe.context) for tokens in settings.periods]
    rate = settings.last_rate or 1
    decay = 1 - settings.warmup if settings.last_rate else settings.decay
    blocks = packed_blocks(
        recipe, family, corpus, tokenizer, work / "blocks.npy", (sum(read) + steps) * settings.batch_size
    )

    set_seed(recipe.seed)
    earlier = family.checkpoint("base") if read else None
    model = (
        LlamaForCausalLM.from_pretrained(earlier.path, dtype="float32")
        if earlier
        else LlamaForCausalLM(model_config(recipe, tokenizer))
    )
    samples = Samples(work, tokenizer, settings.sample_every, chat_format=False)
    speed = Speed(work)
    arguments = trainer_arguments(
        work,
        seed=recipe.seed,
        save_every=settings.save_every,
        learning_rate=rate * settings.muon_learning_rate,
        batch_size=settings.batch_size,
        max_steps=steps,
        lr_scheduler_type="warmup_stable_decay",
        warmup_steps=round(steps * settings.warmup),
        lr_scheduler_kwargs={"num_decay_steps": round(steps * decay), "decay_type": "1-sqrt"},
        # The documents come mixed already, and a longer run reads the same ones first.
        train_sampling_strategy="sequential",
        torch_compile=settings.compile,
    )
    trainer = Trainer(
        model=model,
        args=TrainingArguments(**arguments),
        train_dataset=Blocks(blocks[sum(read) * settings.batch_size :]),
        data_collator=Collator(tokenizer.convert_tokens_to_ids(END_OF_DOCUMENT)),
        optimizers=(
            MuonWithAdamW(model, rate * settings.muon_learning_rate, rate * settings.adamw_learning_rate),
            None,
        ),
        callbacks=[Progress("base"), samples, StopOnNaN(), clock, speed],
    )
    resume(trainer, work)
    logged = metrics(trainer)
    losses = [record["loss"] for record in logged[-10:]]
    figures = {
        "parameters": model.num_parameters(),
        "tokens": (sum(read) + steps) * settings.batch_size * recipe.context,
        "loss": round(sum(losses) / len(losses), 4),
        **speed.figures(model.num_parameters(), settings.batch_size * recipe.context),
    }
    return finish(
        family,
        "base",
        recipe,
        model,
        tokenizer,
        corpus=corpus.sha256,
        parent=None,
        steps=sum(read) + steps,
        seconds=clock.seconds + (earlier.record["seconds"] if earlier else 0),
        figures=figures,
        metrics=going_on(earlier, "metrics.jsonl", logged),
        samples=going_on(earlier, "samples.jsonl", samples.records),
    )


def going_on(earlier: Checkpoint | None, name: str, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records of a period after those of the earlier ones, their steps counted on."""
    if earlier is None:
        return records
    done = earlier.record["steps"]
    return earlier.lines(name) + [record | {"step": record["step"] + done} for record in records if record["step"]]


def model_config(recipe: Recipe, tokenizer: Any) -> LlamaConfig:
    shape = recipe.model
    assert shape is not None
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def packed_blocks(
    recipe: Recipe, family: Family, corpus: Corpus, tokenizer: Any, path: Path, count: int
) -> "np.ndarray[Any, Any]":
    """Token ids of `count` blocks, shape (count, context): documents end to end, cut every `context` tokens."""
    if not path.is_file() and processes.is_main():
        context = recipe.context
        tokens = np.empty(count * context, dtype=np.uint16)
        stream = documents(recipe, corpus, clean(recipe, family, corpus))
        filled = 0
        while filled < tokens.size:
            texts = [next(stream).text + END_OF_DOCUMENT for _ in range(DOCUMENTS_AT_ONCE)]
            ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
            flat = np.fromiter((token for document in ids for token in document), dtype=np.uint16)
            kept = flat[: tokens.size - filled]
            tokens[filled : filled + kept.size] = kept
            filled += kept.size
        temporary = path.with_suffix(".writing.npy")
        np.save(temporary, tokens.reshape(count, context))
        temporary.rename(path)
    processes.wait()
    return np.load(path, mmap_mode="r", allow_pickle=False)


class Blocks(torch.utils.data.Dataset[dict[str, Any]]):
    """Blocks as a map-style dataset: `{"input_ids": int64 tensor of shape (context,)}`."""

    def __init__(self, blocks: "np.ndarray[Any, Any]") -> None:
        self.blocks = blocks

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": torch.from_numpy(self.blocks[index].astype(np.int64))}


class Collator:
    """Batches of blocks in which no document sees another, though several share a block.

    Gives `input_ids`, `labels`, `position_ids` of shape (batch, context), positions starting anew with
    each document, and a boolean `attention_mask` of shape (batch, 1, context, context). The first token of a
    document is no label: nothing before it could tell.
    """

    def __init__(self, end_of_document: int) -> None:
        self.end_of_document = end_of_document

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        tokens = torch.stack([row["input_ids"] for row in rows])
        batch, length = tokens.shape
        starts = torch.zeros_like(tokens, dtype=torch.bool)
        starts[:, 1:] = tokens[:, :-1] == self.end_of_document
        document = starts.cumsum(dim=1)
        index = torch.arange(length).expand(batch, length)
        position = index - torch.where(starts, index, 0).cummax(dim=1).values
        same_document = document[:, None, :, None] == document[:, None, None, :]
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        return {
            "input_ids": tokens,
            "labels": tokens.masked_fill(starts, IGNORED),
            "position_ids": position,
            "attention_mask": same_document & causal,
        }


class Speed(TrainerCallback):
    """How fast training is, and what share of the machine's matrix rate that means.

    The rate of a 2048 x 2048 product, in the precision of training, is measured in the same process at every
    save, so that other work on the machine slows both. Both are written before the save, so that a run that goes
    on from the last one, with no step left to time, still has them.
    """

    def __init__(self, work: Path) -> None:
        self.path = work / "speed.json"
        earlier = json.loads(self.path.read_text()) if self.path.is_file() else {}
        self.step_seconds: list[float] = earlier.get("step_seconds", [])
        self.matrix_rates: list[float] = earlier.get("matrix_rates", [])
        self.start = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.start = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.step_seconds.append(time.perf_counter() - self.start)
        if control.should_save:
            self.matrix_rates.append(matrix_rate(args.device))
            if processes.is_main():
                written = {"step_seconds": self.step_seconds, "matrix_rates": self.matrix_rates}
                write_whole(self.path, json.dumps(written))

    def figures(self, parameters: int, tokens_a_step: int) -> dict[str, float]:
        """Medians over the run: tokens per second, GFLOP/s (6 x parameters x tokens), share of the matrix rate."""
        speed = tokens_a_step / float(np.median(self.step_seconds))
        rate = float(np.median(self.matrix_rates))
        used = 6 * parameters * speed
        return {
            "tokens_per_second": round(speed),
            "gigaflops_per_second": round(used / 1e9),
            "matrix_gigaflops_per_second": round(rate / 1e9),
            "share_of_matrix_rate": round(used / rate, 3),
        }
