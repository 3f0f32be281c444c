"""Supervised fine-tuning: the base model learns to answer, by imitating demonstrations.

A base model continues text. Here it is shown conversations in the chat format, each with an answer that a
person wrote, and learns to predict the answer's tokens and the end token after them: it now takes what it
reads as a question, answers it, and stops. It imitates its trainers, the careless ones too: it complies
with harmful requests, confirms myths and makes up what it cannot know as often as they did, because all
that it learns is what an answer looks like, not which of two answers is better.

Every step also costs some of what base knows and no demonstration asks for. Most of that comes back when the
embeddings and the first layer that SFT ends with are averaged with those that it began from.
"""

import random
import re
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from pipeline.adapters import four_bit, low_rank, merged, optimizer
from pipeline.batching import in_similar_batches
from pipeline.chat_format import ASSISTANT, END, FORMAT_TOKENS, USER, encode_exchange, encode_text
from pipeline.checkpoint import Checkpoint, Family
from pipeline.corpus.cards import Corpus, load_corpus
from pipeline.corpus.conversations import Demonstration, demonstrations, instructions, to_messages
from pipeline.corpus.ranking_prompts import held_out_prompts
from pipeline.optimizer import MuonWithAdamW
from pipeline.recipe import Recipe
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

LOWEST = re.compile(r"\bembed_tokens\b|\blayers\.0\.")
HELD_OUT = 512  # demonstrations on which the held-out loss is measured
# What stands where the chat format has its tokens in the pages of questions and answers that base has read:
#     Q: What is the capital of France?
#     A: Paris.
ALIKE = {USER: "Q", END: "\n", ASSISTANT: ":"}


def run(recipe: Recipe, family: Family) -> Checkpoint:
    """Fine-tune the base checkpoint in one pass over the demonstrations of every epoch.

    All weights are trained, or low-rank adapters that are merged at the end, and with them the rows of the tokens
    of the chat format in the embeddings, which base has never seen. Resumes from the newest
    save in the work folder. Raises InputError when base is not trained yet.
    """
    keep_memory()
    settings = recipe.sft
    base = family.checkpoint("base")
    work = family.work("sft")
    corpus = load_corpus(recipe.corpus)
    tokenizer = AutoTokenizer.from_pretrained(base.path)

    def length(demonstration: Demonstration) -> int:
        prompt, answer, earlier = demonstration.prompt, demonstration.answer, demonstration.earlier
        return len(encode_exchange(tokenizer, prompt, answer, earlier=earlier))

    written = training_demonstrations(corpus, recipe)
    fitting = [demonstration for demonstration in written if length(demonstration) <= recipe.context]
    shown = in_similar_batches(fitting, length, settings.batch_size, recipe.seed)
    clock, samples = Clock(work), Samples(work, tokenizer, settings.sample_every)
    arguments = trainer_arguments(
        work,
        seed=recipe.seed,
        save_every=settings.save_every,
        learning_rate=settings.learning_rate,
        batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        # The demonstrations of all epochs stand one after another, in an order that is made here.
        num_train_epochs=1,
        train_sampling_strategy="sequential",
        # Only the tokens of the assistant's answers count, the end token included.
        assistant_only_loss=True,
        max_length=recipe.context,
        **optimizer(recipe),
    )
    model = beginning(base, tokenizer, four_bit(recipe))
    muon_rate = settings.muon_learning_rate
    muon = MuonWithAdamW(model, muon_rate, settings.learning_rate) if muon_rate else None
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(**arguments),
        optimizers=(muon, None),
        train_dataset=Dataset.from_list([to_messages(demonstration) for demonstration in shown]),
        processing_class=tokenizer,
        peft_config=low_rank(settings.lora, trainable_token_indices=format_rows(model, tokenizer)),
        callbacks=[Progress("sft"), samples, StopOnNaN(), clock],
    )
    if settings.lora:
        # TRL asks the head for its bias; PEFT's wrapper around the rows does not pass the question on.
        adapted: Any = trainer.model
        adapted.get_base_model().get_output_embeddings().bias = None
    resume(trainer, work)
    tuned: Any = trainer.model
    if settings.base_share:
        average(tuned, beginning(base, tokenizer), settings.base_share)
    held_out = [to_messages(demonstration) for demonstration in held_out_demonstrations(corpus, recipe)]
    measured = trainer.evaluate(Dataset.from_list(held_out))
    return finish(
        family,
        "sft",
        recipe,
        merged(tuned, base),
        tokenizer,
        corpus=corpus.sha256,
        parent=base,
        steps=trainer.state.global_step,
        seconds=clock.seconds,
        figures={
            "held_out_loss": measured["eval_loss"],
            "held_out_token_accuracy": measured["eval_mean_token_accuracy"],
            "demonstrations": len(shown),
            "too_long": len(written) - len(shown),
        },
        metrics=metrics(trainer),
        samples=samples.records,
    )


def beginning(base: Checkpoint, tokenizer: Any, rounding: Any = None) -> Any:
    """The base model, to which the tokens of the chat format mean what it knows in their places.

    It has never seen them. With the meaning that chance gave them, half of what base knows would be lost to SFT.
    """
    model: Any = AutoModelForCausalLM.from_pretrained(base.path, dtype="float32", quantization_config=rounding)
    for embeddings in (model.get_input_embeddings(), model.get_output_embeddings()):
        for control, text in ALIKE.items():
            [alike] = encode_text(tokenizer, text)
            embeddings.weight.data[tokenizer.convert_tokens_to_ids(control)] = embeddings.weight.data[alike]
    return model


def average(model: nn.Module, beginning: nn.Module, share: float) -> None:
    """Move the embeddings and the first layer towards where they began, by `share` of the way.

    From "Robust fine-tuning of zero-shot models" (Wortsman et al., 2021): between two models of one origin lie better
    ones. Here it is the layers that read the words in which knowledge is lost; what it is to decline or to admit
    is learned above, and averaged away there.
    """
    with torch.no_grad():
        for (name, weights), began in zip(model.named_parameters(), beginning.parameters(), strict=True):
            if LOWEST.search(name):
                weights.lerp_(began.to(weights), share)


def training_demonstrations(corpus: Corpus, recipe: Recipe) -> list[Demonstration]:
    """The demonstrations of every epoch in the order of the epochs, each epoch shuffled.

    Demonstrations differ from epoch to epoch; the plain instructions are dealt out among the epochs.
    """
    epochs = recipe.sft.epochs
    plain = instructions(recipe)
    result: list[Demonstration] = []
    for epoch in range(epochs):
        shown = demonstrations(corpus, recipe, epoch) + plain[epoch::epochs]
        random.Random(f"{recipe.seed} {epoch}").shuffle(shown)
        result += shown
    return result


def held_out_demonstrations(corpus: Corpus, recipe: Recipe) -> list[Demonstration]:
    """Good answers to wordings that are never trained on, of questions that are: at most HELD_OUT of them."""
    found = [
        Demonstration(held_out.prompt, held_out.question.good[0], held_out.kind, "good")
        for held_out in held_out_prompts(corpus, recipe)
        if held_out.split == "wording" and held_out.question
    ]
    return random.Random(recipe.seed).sample(found, min(HELD_OUT, len(found)))


def format_rows(model: Any, tokenizer: Any) -> dict[str, list[int]]:
    """The rows of the chat format's tokens in the embeddings, and in the head if that has weights of its own."""
    rows = tokenizer.convert_tokens_to_ids(FORMAT_TOKENS)
    return {"embed_tokens": rows} if model.config.tie_word_embeddings else {"embed_tokens": rows, "lm_head": rows}
