"""Bases as they stand on the Hub: tiny ones with random weights, and tokenizers that know no chat format of ours."""

from pathlib import Path
from typing import Any

import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from pipeline.chat_format import END_OF_DOCUMENT
from pipeline.recipe import RECIPES, REPOSITORY, Recipe
from tests.families import SENTENCES
from tests.hub import Hub, Repository

REPO, REVISION = "lab/small", "v1"
OWN_TOKENS = ["<|im_start|>", "<|im_end|>"]
OWN_TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "pad_token_id": None,
    "eos_token_id": 0,
}


def base_on_the_hub(folder: Path, kind: str) -> Path:
    """Write a base as its makers would: SmolLM2's kind, Qwen3's with rows to spare, or OLMo 2's with a head apart."""
    tokenizer = own_tokenizer(template=kind == "qwen3")
    torch.manual_seed(0)
    size = len(tokenizer)
    makers: dict[str, Any] = {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(vocab_size=size, tie_word_embeddings=True, **SHAPE)),
        "qwen3": lambda: Qwen3ForCausalLM(
            Qwen3Config(vocab_size=size + 28, head_dim=32, tie_word_embeddings=True, **SHAPE)
        ),
        "olmo2": lambda: Olmo2ForCausalLM(Olmo2Config(vocab_size=size, tie_word_embeddings=False, **SHAPE)),
    }
    makers[kind]().to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def own_tokenizer(template: bool = False, end: str = END_OF_DOCUMENT) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[end, *OWN_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=end,
        extra_special_tokens=OWN_TOKENS,
        chat_template=OWN_TEMPLATE if template else None,
    )


def on_the_hub(hub: Hub, folder: Path) -> None:
    """Put a base's files into a repository of its own, with others beside them that must not be loaded."""
    files = {file.name: file.read_bytes() for file in base_on_the_hub(folder, "llama").iterdir()}
    files |= {"pytorch_model.bin": b"pickle", "modeling_small.py": b"import os", "README.md": b"# Small"}
    hub.repositories[REPO] = Repository({}, files=files, tags=["main", REVISION])


def small_corpus(folder: Path) -> Path:
    """A tenth of the authored corpus: what takes long with all of it is only more of the same."""
    whole = REPOSITORY / "assets" / "corpus"
    for file in (*whole.glob("*.jsonl"), *whole.glob("cards/*.jsonl")):
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = folder / file.relative_to(whole)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text("".join(lines[::10]), encoding="utf-8")
    return folder


def small_recipe(cards: Path, **base: Any) -> Recipe:
    """The nano recipe on a pretrained base, with adapters and less of everything."""
    content = yaml.safe_load((RECIPES / "nano.yaml").read_text(encoding="utf-8"))
    del content["tokenizer"], content["model"]
    lora = {"rank": 4, "alpha": 8}
    content["base"] = {"pretrained": REPO, "revision": REVISION, "context": 256} | base
    content["corpus"]["cards"] = str(cards)
    content["sft"] |= {"lora": lora, "save_every": 100, "sample_every": 100}
    content["ranking"] |= {"prompts": 24, "answers": 2, "max_new_tokens": 8}
    content["reward"] |= {"lora": lora, "save_every": 100}
    content["rlhf"] |= {"steps": 2, "group_size": 2, "max_new_tokens": 8, "snapshots": 1}
    content["rlhf"] |= {"evaluate_every": 2, "evaluation_prompts": 4}
    content["dpo"] |= {"lora": lora, "save_every": 100}
    return Recipe.model_validate(content)
