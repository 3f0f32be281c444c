"""Models that others trained: each has a chat format and end tokens of its own."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.checkpoint import check_header
from pipeline.errors import InputError
from pipeline.inference.models import RewardModel, StageModel, answering_dtype, load
from pipeline.publish.fetch import fetch_model
from pipeline.published import Place

if TYPE_CHECKING:
    import torch

Template = Mapping[str, bool | str]

ROWS = 32  # in a block of a rounded matrix


@dataclass(frozen=True)
class PublishedStage(StageModel):
    """A model that reads a prompt in its own chat template; a base model does so only with `chat_format`.

    `template` are arguments of the template, which say for example that a model is not to think aloud.
    """

    template: Template = field(default_factory=dict)

    @property
    def stop(self) -> list[int]:
        # Publishers note the end of an answer in one place or the other.
        ends = self.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        return sorted({*ends, self.tokenizer.eos_token_id} - {None})

    def given(self, prompt: str) -> str:
        return str(rendered(self.tokenizer, self.template, [user(prompt)], tokenize=False)) if self.chats else prompt

    def chat_tokens(self, prompt: str) -> list[int]:
        return rendered(self.tokenizer, self.template, [user(prompt)])

    def text_tokens(self, text: str) -> list[int]:
        # With the token that some models want at the beginning.
        return self.tokenizer(text, split_special_tokens=True)["input_ids"]


@dataclass(frozen=True)
class PublishedReward(RewardModel):
    """A reward model that reads an exchange in its own chat template."""

    template: Template = field(default_factory=dict)

    def exchange(self, prompt: str, answer: str, finished: bool) -> list[int]:
        messages = [user(prompt), {"role": "assistant", "content": answer}]
        ending = {"continue_final_message": not finished, "add_generation_prompt": False}
        return rendered(self.tokenizer, self.template, messages, **ending)


def user(prompt: str) -> dict[str, str]:
    return {"role": "user", "content": prompt}


def rendered(tokenizer: Any, template: Template, messages: list[dict[str, str]], **how: bool) -> Any:
    """A conversation in the model's own chat template, as tokens, or as text if `tokenize` is False.

    What a person wrote and the template's own words are cut into tokens together, as in training. Raises InputError
    if a person typed a control token, which would then count as one, and for a model without a template.
    """
    if tokenizer.chat_template is None:
        raise InputError("this model has no chat template: it can only go on with plain text")
    controls = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    for control in controls:
        if any(control in message["content"] for message in messages):
            raise InputError(f"{control} is a control token of this model; write it differently")
    settings = {"add_generation_prompt": True, "return_dict": False, **template, **how}
    return tokenizer.apply_chat_template(messages, **settings)


def load_published(place: Place, stage: str, bits: Literal[4, 8] | None = None) -> PublishedStage:
    """Fetch and load the model of a stage, its weights rounded to `bits` if any are given.

    Raises InputError for one that cannot be had, or cannot chat but should."""
    from transformers import AutoModelForCausalLM

    model, tokenizer = load_safely(AutoModelForCausalLM, place, answering_dtype(), bits)
    published = PublishedStage(stage, model, tokenizer, template=place.template)
    if published.chats and tokenizer.chat_template is None:
        raise InputError(f"{place.repo} has no chat template; only a base stage can do without")
    return published


def load_published_reward(place: Place, bits: Literal[4, 8] | None = None) -> PublishedReward:
    """Fetch and load a reward model. Raises InputError for one that cannot be had, or gives not just one number."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model, tokenizer = load_safely(AutoModelForSequenceClassification, place, torch.float32, bits)
    if model.config.num_labels != 1:
        raise InputError(f"{place.repo} gives {model.config.num_labels} numbers; a reward model gives one")
    if tokenizer.chat_template is None or tokenizer.pad_token_id is None:
        raise InputError(f"{place.repo} cannot be used: a reward model wants a chat template and a padding token")
    # What the model takes the end of an exchange to be.
    model.config.pad_token_id = tokenizer.pad_token_id
    return PublishedReward(model, tokenizer, template=place.template)


def load_safely(kind: Any, place: Place, dtype: "torch.dtype", bits: Literal[4, 8] | None) -> tuple[Any, Any]:
    assert place.repo
    assert place.revision
    folder = fetch_model(place.repo, place.revision)
    for weights in folder.glob("*.safetensors"):
        check_header(weights)
    try:
        return load(kind, folder, dtype) if bits is None else load(kind, folder, **rounded(folder, bits))
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{place.repo} cannot be loaded: {reason}") from error


def rounded(folder: Path, bits: Literal[4, 8]) -> dict[str, Any]:
    """How a model is loaded with its matrices in 4 (`in_four_bits`) or 8 bits (LLM.int8, arXiv:2208.07339).

    The rest of it is kept in bfloat16, whose range is that of the weights as they were trained. The head is rounded,
    too, for with a large vocabulary it is a good part of a model, unless it shares its matrix with the embeddings or
    has rows that do not fill the blocks of bitsandbytes' product on a CPU.
    """
    import torch
    from transformers import AutoConfig, BitsAndBytesConfig

    from pipeline.precision import in_four_bits

    config = AutoConfig.from_pretrained(folder, local_files_only=True).get_text_config()
    keeps_head = config.tie_word_embeddings or config.vocab_size % ROWS
    whole = ["lm_head", "embed_out", "score"] if keeps_head else ["score"]
    in_eight_bits = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=whole)
    settings = in_four_bits(torch.bfloat16, whole) if bits == 4 else in_eight_bits
    return {"dtype": torch.bfloat16, "quantization_config": settings}
