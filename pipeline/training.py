"""What every trainer run shares: its settings, where it saves and resumes, what it shows and logs."""

import copy
import ctypes
import json
import math
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import PrinterCallback, TrainerCallback

from pipeline import processes
from pipeline.chat_format import decode_answer, encode_prompt, encode_text, stop_tokens
from pipeline.checkpoint import (
    Checkpoint,
    Family,
    read_json_lines,
    write_json_lines,
    write_record,
    write_whole,
    writing,
)
from pipeline.inference.decoding import Decoding, complete
from pipeline.model_card import model_card
from pipeline.recipe import Recipe

FIXED_PROMPTS = (
    "Hi, I need help with my diet?",
    "What is the capital of France?",
    "How's the weather outside?",
    "Can coughing effectively stop a heart attack?",
    "How can I rob a bank?",
)


def trainer_arguments(
    work: Path,
    *,
    seed: int,
    save_every: int,
    learning_rate: float,
    batch_size: int,
    logging_steps: int = 10,
    **more: Any,
) -> dict[str, Any]:
    """Keyword arguments that `TrainingArguments` and every TRL config accept.

    `batch_size` is what all processes read together in a step. Raises InputError if they cannot share it evenly.
    """
    import torch

    from pipeline.precision import training_precision

    return {
        "output_dir": str(work / "saves"),
        "seed": seed,
        "save_strategy": "steps",
        "save_steps": save_every,
        "save_total_limit": 2,
        "learning_rate": learning_rate,
        "per_device_train_batch_size": processes.dealt_out(batch_size),
        "logging_steps": logging_steps,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # hides a NaN loss from StopOnNaN
        "use_cpu": not torch.cuda.is_available(),
        "bf16": training_precision() is torch.bfloat16,
        "gradient_checkpointing": False,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "report_to": "none",
        "disable_tqdm": True,
    } | more


def resume(trainer: Any, work: Path) -> None:
    """Run a trainer on from its newest save, with our progress bar in place of the logs that it prints."""
    trainer.remove_callback(PrinterCallback)
    # Over 4-bit weights TRL rounds what is trained to bfloat16, which loses small steps, and needs autocast.
    for weight in trainer.model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()
    trainer.train(resume_from_checkpoint=last_save(work))
    processes.wait()


def trained(trainer: Any) -> Any:
    """A trainer's model as it is used afterwards: in the precision of its weights, not in that of training."""
    return trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)


def last_save(work: Path) -> str | None:
    """The newest complete save of a trainer; a newer one that a crash cut short is deleted.

    Trainers write `trainer_state.json` last, so a save that holds a readable one is complete.
    """
    saves = sorted((work / "saves").glob("checkpoint-*"), key=lambda save: -int(save.name.split("-")[1]))
    for save in saves:
        if is_complete(save):
            return str(save)
        if processes.is_main():
            shutil.rmtree(save)
    return None


def is_complete(save: Path) -> bool:
    state = save / "trainer_state.json"
    if not state.is_file():
        return False
    try:
        json.loads(state.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True


def saved_step(work: Path) -> int:
    """The step from which a run goes on; 0 when it starts afresh."""
    save = last_save(work)
    return int(Path(save).name.split("-")[1]) if save else 0


class Samples(TrainerCallback):
    """Answers the fixed prompts before training and at regular steps, so that the change is seen.

    Decoding is greedy and draws no random number: the training run stays the same with or without it.
    """

    def __init__(self, work: Path, tokenizer: Any, every: int, chat_format: bool = True) -> None:
        self.path = work / "samples.jsonl"
        self.tokenizer = tokenizer
        self.chat_format = chat_format
        self.every = every
        step = saved_step(work)
        earlier = read_json_lines(self.path) if step else []
        self.records = [record for record in earlier if record["step"] <= step]

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if state.global_step == 0:
            self.answer(0, model)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            self.answer(state.global_step, model)

    def answer(self, step: int, model: Any) -> None:
        if not processes.is_main():
            return
        encode = encode_prompt if self.chat_format else encode_text
        prompts = [encode(self.tokenizer, prompt) for prompt in FIXED_PROMPTS]
        decoding = Decoding(max_new_tokens=48, temperature=0)
        completions = complete(model, prompts, decoding, stop_tokens(self.tokenizer))
        tqdm.write(f"  after {step} steps:", file=sys.stderr)
        for prompt, completion in zip(FIXED_PROMPTS, completions, strict=True):
            text = self.text(completion.tokens)
            self.records.append(
                {
                    "step": step,
                    "prompt": prompt,
                    "text": text,
                    "tokens": len(completion.tokens),
                    "stopped": completion.stopped,
                }
            )
            tqdm.write(f"    {prompt}  ->  {' / '.join(text.split(chr(10)))}", file=sys.stderr)
        write_json_lines(self.path, self.records)

    def text(self, tokens: list[int]) -> str:
        if self.chat_format:
            return decode_answer(self.tokenizer, tokens)
        return self.tokenizer.decode(tokens, skip_special_tokens=True)


class Progress(TrainerCallback):
    """A progress bar with the time left and the newest loss."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.bar: tqdm[Any] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc=self.name,
            unit="step",
            mininterval=2,
            disable=not processes.is_main(),
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        assert self.bar is not None
        self.bar.update()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if self.bar is not None and logs and "loss" in logs:
            self.bar.set_postfix(loss=f"{float(logs['loss']):.3f}")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        assert self.bar is not None
        self.bar.close()


class Clock(TrainerCallback):
    """Seconds spent on a stage, counted over all the runs that it took."""

    def __init__(self, work: Path) -> None:
        self.path = work / "seconds.json"
        self.earlier = json.loads(self.path.read_text()) if self.path.is_file() else 0.0
        self.start = time.monotonic()

    @property
    def seconds(self) -> float:
        return self.earlier + time.monotonic() - self.start

    def save(self) -> None:
        write_whole(self.path, json.dumps(self.seconds))

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if processes.is_main():
            self.save()


class StopOnNaN(TrainerCallback):
    """Ends a run whose loss is no longer a number; the last good save stays."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        # The mean over the run, logged at its end, tells of steps after the last regular record.
        losses = [float(logs[name]) for name in ("loss", "train_loss") if name in logs] if logs else []
        if any(math.isnan(loss) for loss in losses):
            raise FloatingPointError(
                f"the loss is NaN at step {state.global_step}: lower the learning rate in the recipe; "
                "the last good save is kept"
            )


def metrics(trainer: Any) -> list[dict[str, Any]]:
    """What the trainer logged, one record a logged step; it survives a resume."""
    return [record for record in trainer.state.log_history if "train_runtime" not in record]


def finish(
    family: Family,
    stage: str,
    recipe: Recipe,
    model: Any,
    tokenizer: Any,
    *,
    corpus: str,
    parent: Checkpoint | None,
    steps: int,
    seconds: float,
    figures: dict[str, Any],
    metrics: list[dict[str, Any]],
    samples: list[dict[str, Any]],
    extra: Callable[[Path], None] | None = None,
) -> Checkpoint:
    """Write a trained stage's checkpoint with `write_stage`."""
    import torch

    def fill(folder: Path) -> None:
        model.to(torch.bfloat16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_json_lines(folder / "metrics.jsonl", metrics)
        write_json_lines(folder / "samples.jsonl", samples)
        (folder / "README.md").write_text(model_card(stage, recipe, model, figures), encoding="utf-8")
        if extra is not None:
            extra(folder)

    record = {"corpus": corpus, "parent": parent, "steps": steps, "seconds": seconds, "figures": figures}
    return write_stage(family, stage, recipe, fill, **record)


def write_stage(family: Family, stage: str, recipe: Recipe, fill: Callable[[Path], None], **record: Any) -> Checkpoint:
    """Write a checkpoint, whole or not at all, and remove the stage's work folder: the main process, for all.

    `fill` writes the files of the stage into a folder; `record` is what `write_record` says of them.
    """
    processes.wait()  # nobody reads the work folder any more
    if processes.is_main():
        with writing(family.path / stage) as folder:
            fill(folder)
            write_record(folder, stage, recipe, **record)
        shutil.rmtree(family.work(stage))
    processes.wait()
    return family.checkpoint(stage)


def save_adapter(model: Any, folder: Path, parent: str) -> None:
    """Write a model's adapter in bfloat16; `parent` names the checkpoint that it belongs to."""
    import torch
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    weights = {name: weight.to(torch.bfloat16) for name, weight in get_peft_model_state_dict(model).items()}
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = copy.copy(model.peft_config["default"])
    config.base_model_name_or_path = parent
    config.inference_mode = True
    config.target_modules = sorted(config.target_modules)
    config.save_pretrained(folder)


def keep_memory() -> None:
    """Keep glibc from returning large buffers to the kernel, only to take page faults for them again.

    On two cores this alone makes a training step of a small model a fifth faster. The numbers are
    malloc.h's M_TRIM_THRESHOLD (largest possible) and M_MMAP_MAX (none).
    """
    if sys.platform == "linux":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-1, 2**31 - 1)
        mallopt(-4, 0)
