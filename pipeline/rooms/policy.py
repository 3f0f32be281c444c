"""Moving the policy: a short RLHF run against a room's reward model, on the prompts that the room chose.

What people reward, the policy does more of, whether they meant it or not. Without the KL penalty nothing holds it.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from statistics import fmean
from typing import Any

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback

from pipeline.adapters import low_rank
from pipeline.chat_format import END, decode_answer, encode_prompt, stop_tokens
from pipeline.checkpoint import Checkpoint, Family, write_json_lines, write_record, writing
from pipeline.errors import InputError
from pipeline.inference.decoding import Decoding, complete
from pipeline.inference.divergence import divergence_from_start
from pipeline.inference.models import RewardModel, checked, load_reward
from pipeline.recipe import Recipe, RlhfSettings, load_recipe
from pipeline.rooms.adapters import reward_of
from pipeline.rooms.push import Push
from pipeline.run import RECIPE
from pipeline.stages.rlhf import Scoring, algorithm, is_check, readable
from pipeline.training import FIXED_PROMPTS, StopOnNaN, keep_memory, metrics, save_adapter

Report = Callable[[dict[str, Any]], None]


def move(
    family: Family, rewarding: Family | None, prompts: Sequence[str], push: Push, room: Family, report: Report
) -> Checkpoint:
    """Train an adapter with GRPO and write it, whole or not at all, as the room's `rlhf` checkpoint.

    The reward is that of the room `rewarding`, or of the family's own reward model.
    `report` is told {"step", "steps", "reward", "length"} after every step, and every few steps {"step", "kl",
    "answers": [{"prompt", "text", "reward"}]} of the fixed prompts; the KL from the start is in nats an answer.
    Raises InputError when the start is not trained, or when no prompt leaves room for an answer.
    """
    keep_memory()
    began = time.monotonic()
    reward = reward_of(family, rewarding) if rewarding else load_reward(family.checkpoint("reward"))
    recipe = pushed(load_recipe(str(family.path / RECIPE)), push)
    start = family.checkpoint(push.start)
    tokenizer = AutoTokenizer.from_pretrained(start.path)
    policy = AutoModelForCausalLM.from_pretrained(start.path, dtype="float32")
    policy.generation_config.eos_token_id = stop_tokens(tokenizer)
    rows = shown(prompts, recipe, tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        scoring = Scoring(work, reward, recipe.rlhf)
        watching = Watching(tokenizer, reward, recipe, report)
        trainer_class, arguments = algorithm(recipe, work)
        arguments.save_strategy = "no"
        trainer = trainer_class(
            model=policy,
            reward_funcs=[scoring.preference, scoring.unfinished],
            args=arguments,
            train_dataset=rows,
            processing_class=tokenizer,
            peft_config=low_rank(recipe.rlhf.lora),
            callbacks=[scoring, watching, StopOnNaN()],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    with writing(room.path / "rlhf") as folder:
        save_adapter(trainer.model, folder, push.start)
        tokenizer.save_pretrained(folder)
        write_json_lines(folder / "metrics.jsonl", [readable(record) for record in metrics(trainer)])
        write_json_lines(folder / "samples.jsonl", watching.records)
        write_json_lines(folder / "completions.jsonl", scoring.records)
        write_record(
            folder,
            "rlhf",
            recipe,
            corpus=start.record["corpus"]["sha256"],
            parent=start,
            steps=push.steps,
            seconds=time.monotonic() - began,
            figures={
                "start": push.start,
                "kl_coefficient": push.kl_coefficient,
                "prompts": len(set(prompts)),
                "before": watching.checks[0],
                "after": watching.checks[-1],
            },
        )
    return room.checkpoint("rlhf")


def pushed(recipe: Recipe, push: Push) -> Recipe:
    """The family's recipe with the room's settings in its RLHF stage."""
    room = recipe.rooms.policy
    settings = recipe.rlhf.model_dump() | {
        "steps": push.steps,
        "kl_coefficient": push.kl_coefficient,
        "prompts_per_step": room.prompts_per_step,
        "group_size": room.group_size,
        "max_new_tokens": min(room.max_new_tokens, recipe.rlhf.max_new_tokens),
        "learning_rate": room.learning_rate,
        "evaluate_every": room.watch_every,
    }
    return recipe.model_copy(update={"rlhf": RlhfSettings(**settings)})


def shown(prompts: Sequence[str], recipe: Recipe, tokenizer: Any) -> Dataset:
    """The prompts of every step, over and over."""
    settings = recipe.rlhf
    longest = recipe.context - settings.max_new_tokens
    fitting = [prompt for prompt in map(checked, prompts) if len(encode_prompt(tokenizer, prompt)) <= longest]
    if not fitting:
        raise InputError("none of the prompts leaves room for an answer; choose shorter ones")
    every = islice(cycle(fitting), settings.steps * settings.prompts_per_step)
    return Dataset.from_list([{"prompt": [{"role": "user", "content": prompt}]} for prompt in every])


class Watching(TrainerCallback):
    """Tells how the policy moves: its reward at every step, and what it says to the fixed prompts now and then."""

    def __init__(self, tokenizer: Any, reward: RewardModel, recipe: Recipe, report: Report) -> None:
        self.tokenizer = tokenizer
        self.end = tokenizer.convert_tokens_to_ids(END)
        self.reward = reward
        self.settings = recipe.rlhf
        self.report = report
        self.encoded = [encode_prompt(tokenizer, prompt) for prompt in FIXED_PROMPTS]
        self.decoding = Decoding(self.settings.max_new_tokens, self.settings.temperature, seed=recipe.seed)
        self.records: list[dict[str, Any]] = []
        self.checks: list[dict[str, float]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.watch(0, model)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if is_check(state.global_step, self.settings):
            self.watch(state.global_step, model)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if logs and "reward" in logs:
            told = {"reward": float(logs["rewards/preference/mean"]), "length": float(logs["completions/mean_length"])}
            self.report({"step": state.global_step, "steps": state.max_steps} | told)

    def watch(self, step: int, model: Any) -> None:
        completions = complete(model, self.encoded, self.decoding, stop_tokens(self.tokenizer))
        texts = [decode_answer(self.tokenizer, completion.tokens) for completion in completions]
        rewards = self.reward.scores(list(zip(FIXED_PROMPTS, texts, strict=True)))
        answers = [
            {
                "step": step,
                "prompt": prompt,
                "text": text,
                "tokens": len(completion.tokens),
                "stopped": completion.stopped,
                "reward": reward,
            }
            for prompt, text, completion, reward in zip(FIXED_PROMPTS, texts, completions, rewards, strict=True)
        ]
        check = {
            "reward": fmean(rewards),
            "kl": divergence_from_start(model, self.encoded, completions, self.end, self.settings.temperature),
            "length": fmean(len(completion.tokens) for completion in completions),
        }
        self.records += answers
        self.checks.append(check)
        self.report({"step": step, "steps": self.settings.steps, "check": check, "answers": answers})
