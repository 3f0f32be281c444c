"""Base, as others have trained it: the stage of `base.py` for those who cannot spend months and a data centre on it.

The model comes from the Hub with the tokenizer that it was trained with, in place of the tokenizer and base stages.
It has read thousands of times as much as a base that is trained here, and it is the same kind of thing: it
continues text. It gets the control tokens of the chat format, which mean nothing to it yet.
"""

from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from pipeline.chat_format import END, END_OF_DOCUMENT, add_control_tokens, stop_tokens
from pipeline.checkpoint import Checkpoint, Family
from pipeline.corpus.cards import load_corpus
from pipeline.errors import InputError
from pipeline.publish.hub import clear_errors
from pipeline.recipe import PretrainedSettings, Recipe
from pipeline.training import Clock, Samples, finish

# No program code, no pickle, and nothing that other libraries read.
FILES = ("*.json", "*.safetensors", "merges.txt")


def run(recipe: Recipe, family: Family) -> Checkpoint:
    """Take the model of the recipe from the Hub and write it as the base checkpoint.

    Raises InputError when the Hub refuses it, when it is no causal language model in safetensors that
    `transformers` knows by itself, or when its context or its tokenizer do not suit the recipe.
    """
    settings = recipe.base
    assert isinstance(settings, PretrainedSettings)
    work = family.work("base")
    clock = Clock(work)
    folder = download(settings)
    tokenizer, model = load(settings, folder)
    check(settings, tokenizer, model)
    add_rows(model, tokenizer, add_control_tokens(tokenizer))
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    samples = Samples(work, tokenizer, every=1, chat_format=False)
    samples.answer(0, model)
    return finish(
        family,
        "base",
        recipe,
        model,
        tokenizer,
        corpus=load_corpus(recipe.corpus).sha256,
        parent=None,
        steps=0,
        seconds=clock.seconds,
        figures={
            "parameters": model.num_parameters(),
            "pretrained": settings.pretrained,
            "revision": settings.revision,
            "commit": folder.name,
        },
        metrics=[],
        samples=samples.records,
    )


def download(settings: PretrainedSettings) -> Path:
    """The model's folder in the cache of the Hub's client; its name is the commit. What is there is used again."""
    with clear_errors(settings.pretrained):
        return Path(snapshot_download(settings.pretrained, revision=settings.revision, allow_patterns=list(FILES)))


def load(settings: PretrainedSettings, folder: Path) -> tuple[Any, Any]:
    """Tokenizer and model."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, local_files_only=True
        )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{settings.pretrained} cannot be used as a base: {reason}") from error
    return tokenizer, model


def check(settings: PretrainedSettings, tokenizer: Any, model: Any) -> None:
    """Raise InputError for what the stages could not work with."""
    name, longest = settings.pretrained, model.config.get_text_config().max_position_embeddings
    if settings.context > longest:
        raise InputError(f"{name} reads {longest} tokens at once; lower 'base.context' in the recipe")
    if tokenizer.eos_token != END_OF_DOCUMENT or tokenizer("")["input_ids"]:
        raise InputError(
            f"{name} has a tokenizer that begins texts with a token of its own, or ends them with another than "
            f"{END_OF_DOCUMENT}; use a base such as SmolLM2, Qwen3 or OLMo 2"
        )


def add_rows(model: Any, tokenizer: Any, added: list[int]) -> None:
    """Give the added tokens rows in the embeddings, some of which a model may have in reserve.

    A row that is the mean of all others is hardly ever chosen (Hewitt 2021, "Initializing new word embeddings").
    The end token begins as what it is closest to, the end of a document.
    """
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    known = [token for token in tokenizer.get_vocab().values() if token not in added]
    end, end_of_document = tokenizer.convert_tokens_to_ids([END, END_OF_DOCUMENT])
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        with torch.no_grad():
            layer.weight[added] = layer.weight[known].mean(0)
            layer.weight[end] = layer.weight[end_of_document]
    model.config.bos_token_id = None
    model.config.eos_token_id, model.config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    model.generation_config = GenerationConfig(eos_token_id=stop_tokens(tokenizer), pad_token_id=tokenizer.pad_token_id)
