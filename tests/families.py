"""A family of random weights: every stage of the right shape, made in a second, that has learned nothing."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from pipeline.chat_format import CONTROL_TOKENS, END, END_OF_DOCUMENT, PADDING, TEMPLATE
from pipeline.checkpoint import RECORD, Family, write_json_lines, write_record, write_whole, writing
from pipeline.inference.decoding import Decoding
from pipeline.inference.models import Answer, StageModel
from pipeline.recipe import Recipe, load_recipe
from pipeline.run import RECIPE

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


def speaking(model: Any, stream: Stream) -> StageModel:
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


PROMPTS = ["What is the capital of France?", "How's the weather outside?"]
STEPS = 40  # of every stage of a family with a past
SNAPSHOTS = [10, 20, 40]


def add_past(family: Family, snapshots: list[int] = SNAPSHOTS) -> None:
    """Give a random family what training leaves: metrics and samples, snapshots of RLHF, completions, a recipe."""
    recipe = load_recipe("nano")
    write_whole(family.path / RECIPE, yaml.safe_dump(recipe.model_dump()))
    for stage in family.stages:
        folder, figures = family.path / stage, family.checkpoint(stage).figures
        write_json_lines(folder / "metrics.jsonl", [measured(stage, step) for step in range(0, STEPS + 1, 2)])
        write_json_lines(folder / "samples.jsonl", samples([STEPS] if stage == "reward" else [0, 25, STEPS]))
        if stage == "rlhf":
            write_json_lines(folder / "completions.jsonl", [completions(step) for step in range(1, STEPS + 1)])
            for step in snapshots:
                add_snapshot(family, step)
        (folder / RECORD).unlink()
        write_record(folder, stage, recipe, corpus="none", parent=None, steps=STEPS, seconds=90.0, figures=figures)


def add_snapshot(family: Family, step: int) -> None:
    """An adapter over SFT that changes every layer at random."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(step + 3)
    lora = LoraConfig(r=4, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    policy = get_peft_model(AutoModelForCausalLM.from_pretrained(family.path / "sft"), lora)
    policy.save_pretrained(str(family.path / "rlhf" / "snapshots" / f"step-{step:04d}"))


def measured(stage: str, step: int) -> dict[str, Any]:
    """One line of `metrics.jsonl`; RLHF is also checked at every tenth step."""
    if stage == "rlhf" and step % 10 == 0:
        return {"step": step, "held_out_reward": step / 20, "held_out_grade": 0.5, "held_out_win_rate": 0.5}
    by_stage: dict[str, dict[str, float]] = {
        "reward": {"accuracy": 0.5 + step / 100, "margin": step / 10},
        "rlhf": {"reward": step / 10, "kl": step / 5, "entropy": 2.0, "length": 30.0 + step, "unfinished": 0.0},
        "dpo": {"rewards/accuracies": 0.5 + step / 100, "rewards/chosen": -step / 50, "rewards/rejected": -step / 10},
        "sft": {"mean_token_accuracy": 0.2 + step / 100, "entropy": 3.0},
    }
    return {"step": step, "loss": 8.0 - step / 10, "learning_rate": 0.001} | by_stage.get(stage, {})


def samples(steps: list[int]) -> list[dict[str, Any]]:
    return [
        {"step": step, "prompt": prompt, "text": f"{step} times {prompt}", "tokens": 9, "stopped": True, "reward": 0.5}
        for step in steps
        for prompt in PROMPTS
    ]


def completions(step: int) -> dict[str, Any]:
    written = [{"text": f"Answer {number}.", "stopped": True, "reward": float(number)} for number in range(3)]
    return {"step": step, "prompt": f"Prompt of step {step}?", "completions": written}
