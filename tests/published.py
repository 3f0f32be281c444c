"""Models as others publish them: several architectures of random weights, each with a chat format of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub.constants as hub_constants
import pytest
import yaml

from pipeline.publish import fetch
from tests.families import SENTENCES
from tests.hub import Hub, Repository, running_hub

START, FINISH, DOCUMENT = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if aloud is false %}Silently: {% endif %}{% endif %}"
)
REVISION = "main"
SHAPE: dict[str, Any] = {
    "hidden_size": 64,  # bitsandbytes rounds blocks of 64 weights, and wants rows in blocks of 32
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
}


def config(kind: str, vocabulary: int) -> Any:
    """A tiny configuration of an architecture: llama, qwen3, olmo2 or gpt_neox."""
    from transformers import AutoConfig

    shape = SHAPE if kind == "gpt_neox" else {**SHAPE, "num_key_value_heads": 1}
    more = {"head_dim": 32} if kind == "qwen3" else {}
    return AutoConfig.for_model(kind, vocab_size=vocabulary, **shape, **more)


def chat_tokenizer(template: str | None = TEMPLATE, vocabulary: int = 352) -> Any:
    """A small tokenizer of the kind that ChatML models have."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[DOCUMENT, START, FINISH],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=DOCUMENT,
        pad_token=DOCUMENT,
        extra_special_tokens=[START, FINISH],
        chat_template=template,
    )


def save_answering(folder: Path, kind: str, seed: int, template: str | None = TEMPLATE, ends: str = FINISH) -> None:
    """Save a language model whose generation configuration, and nothing else, says how an answer ends."""
    import torch
    from transformers import AutoModelForCausalLM

    tokenizer = chat_tokenizer(template)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config(kind, len(tokenizer)))
    model.generation_config.eos_token_id = [tokenizer.convert_tokens_to_ids(ends)]
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_reward(folder: Path, kind: str, labels: int = 1) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    tokenizer = chat_tokenizer()
    torch.manual_seed(9)
    shape = config(kind, len(tokenizer))
    shape.num_labels = labels
    shape.pad_token_id = tokenizer.pad_token_id
    AutoModelForSequenceClassification.from_config(shape).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def upload(hub: Hub, repo: str, folder: Path) -> Repository:
    """Put the files of a folder into a repository of the hub."""
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    hub.repositories[repo] = Repository({}, files, commits=1)
    return hub.repositories[repo]


@contextmanager
def hub_here(cache: Path) -> Iterator[Hub]:
    """Serve a hub, and let this process use it and no other, with an empty cache."""
    with running_hub() as hub, pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub_constants, "ENDPOINT", hub.address)
        patch.setattr(
            hub_constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        patch.setattr(hub_constants, "HF_HUB_CACHE", str(cache))
        patch.setattr(hub_constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
        patch.setattr(fetch, "MODELS", cache / "notes")
        yield hub


def family_file(path: Path, stages: dict[str, dict[str, Any]]) -> Path:
    path.write_text(yaml.safe_dump({"name": path.stem, "description": "for a test", "stages": stages}, sort_keys=False))
    return path
