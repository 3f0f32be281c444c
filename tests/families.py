"""A family of random weights: every stage of the right shape, made in a second, that has learned nothing."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.chat_format import CONTROL_TOKENS, END, END_OF_DOCUMENT, PADDING, TEMPLATE
from pipeline.checkpoint import Family, write_record, writing
from pipeline.inference.decoding import Decoding
from pipeline.inference.models import Answer, StageModel
from pipeline.recipe import Recipe, load_recipe

Stream = Callable[[str, Decoding], Iterator[Answer]]

SENTENCES = [
    "What is the capital of France? The capital of France is Paris.",
    "Oranges, strawberries and kiwis are rich in vitamin C.",
    "I cannot see outside, so I do not know how the weather is today.",
    "No, coughing cannot stop a heart attack. Call the emergency number at once.",
    "I will not help with that, but I am glad to talk about how banks keep money safe.",
]


def random_family(path: Path, stages: tuple[str, ...] = ("base", "sft", "reward", "rlhf")) -> Family:
    """Write checkpoints of about 0.1 million random parameters for `stages` into the folder `path`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    recipe = load_recipe("nano")
    tokenizer = random_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids(END),
        pad_token_id=tokenizer.convert_tokens_to_ids(PADDING),
    )
    for number, stage in enumerate(stages):
        torch.manual_seed(number)
        if stage == "reward":
            config.num_labels = 1
            write(path, stage, recipe, LlamaForSequenceClassification(config), tokenizer, {"scale": [-2.0, 2.0]})
        else:
            write(path, stage, recipe, LlamaForCausalLM(config), tokenizer, {})
    return Family(path)


def speaking(model: StageModel, stream: Stream) -> StageModel:
    """The same stage with a prepared stream of answers, to see what others make of it."""

    class Speaking(StageModel):
        def stream(self, prompt: str, decoding: Decoding) -> Iterator[Answer]:
            return stream(prompt, decoding)

    return Speaking(model.stage, model.model, model.tokenizer)


def write(path: Path, stage: str, recipe: Recipe, model: Any, tokenizer: Any, figures: dict[str, Any]) -> None:
    with writing(path / stage) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_record(folder, stage, recipe, corpus="none", parent=None, steps=0, seconds=0.0, figures=figures)


def random_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=CONTROL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_DOCUMENT,
        pad_token=PADDING,
        extra_special_tokens=[token for token in CONTROL_TOKENS if token not in (END_OF_DOCUMENT, PADDING)],
        chat_template=TEMPLATE,
    )
