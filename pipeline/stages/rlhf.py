"""Reinforcement learning from human feedback: the SFT model learns to give answers that are preferred.

It answers prompts several times over, the reward model scores the answers, and a policy gradient makes those
likelier that scored above their siblings, while a KL penalty holds the policy near SFT. So it learns from its
own answers, the bad ones included, what no demonstration shows: which of the things that it can say people
want. It learns no new facts, and it pleases the reward model, not the people behind it: held too loosely, it
finds what the reward model overrates. Hence the checks on held-out prompts by the annotator, who is not fooled.
"""

import shutil
import time
from itertools import cycle, islice
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback, TrainerState
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from pipeline import processes
from pipeline.adapters import four_bit, low_rank, optimizer
from pipeline.annotator import TIE, Annotator, declines
from pipeline.chat_format import END, decode_answer, encode_prompt, stop_tokens
from pipeline.checkpoint import Checkpoint, Family, read_json_lines, write_json_lines, writing
from pipeline.corpus.cards import Corpus, load_corpus
from pipeline.corpus.ranking_prompts import RankingPrompt, balanced, held_out_prompts, policy_prompts
from pipeline.errors import InputError
from pipeline.inference.decoding import Decoding, complete, continuations
from pipeline.inference.divergence import divergence_from_start
from pipeline.inference.models import RewardModel, load_reward
from pipeline.recipe import Recipe, RlhfSettings
from pipeline.training import (
    Clock,
    Progress,
    Samples,
    StopOnNaN,
    finish,
    keep_memory,
    last_save,
    metrics,
    resume,
    save_adapter,
    saved_step,
    trainer_arguments,
)

if TYPE_CHECKING:
    pass

Record = dict[str, Any]
WIN_RATE = "held_out_win_rate"
# Under which name TRL logs what `metrics.jsonl` calls so.
LOGGED = {
    "loss": "loss",
    "reward": "rewards/preference/mean",
    "reward_deviation": "rewards/preference/std",
    "entropy": "entropy",
    "length": "completions/mean_length",
    "unfinished": "completions/clipped_ratio",
    "gradient_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "sampling_seconds": "sampling_seconds",
    "scoring_seconds": "scoring_seconds",
}


def run(recipe: Recipe, family: Family) -> Checkpoint:
    """Train a low-rank adapter on SFT against the reward model, and merge it.

    GRPO (Shao et al. 2024, arXiv:2402.03300) without its length and deviation normalisation, which favour
    long wrong answers and prompts that are settled already ("Dr. GRPO", Liu et al. 2025, arXiv:2503.20783);
    or RLOO (Ahmadian et al. 2024, arXiv:2402.14740). The reference is SFT itself: the adapter switched off.

    Resumes from the newest save in the work folder. Raises InputError when SFT or the reward model is
    missing, or when no prompt leaves room for an answer.
    """
    keep_memory()
    settings = recipe.rlhf
    sft = family.checkpoint("sft")
    reward = load_reward(family.checkpoint("reward"))
    corpus = load_corpus(recipe.corpus)
    tokenizer = AutoTokenizer.from_pretrained(sft.path)
    policy = AutoModelForCausalLM.from_pretrained(sft.path, dtype="float32", quantization_config=four_bit(recipe))
    # Sampling in training ends where it ends afterwards.
    policy.generation_config.eos_token_id = stop_tokens(tokenizer)

    work = family.work("rlhf")
    save = last_save(work)
    clock, samples = Clock(work), Samples(work, tokenizer, settings.evaluate_every)
    scoring = Scoring(work, reward, settings)
    checks = HeldOutChecks(work, evaluation_prompts(corpus, recipe, tokenizer), tokenizer, reward, recipe)
    snapshots = Snapshots(work, settings)
    trainer_class, arguments = algorithm(recipe, work)
    trainer = trainer_class(
        model=policy,
        reward_funcs=[scoring.preference, scoring.unfinished],
        args=arguments,
        train_dataset=training_prompts(corpus, recipe, tokenizer),
        processing_class=tokenizer,
        peft_config=low_rank(settings.lora),
        callbacks=[Progress("rlhf"), samples, scoring, checks, snapshots, StopOnNaN(), clock],
    )
    if save:
        trainer.state = TrainerState.load_from_json(str(Path(save) / "trainer_state.json"))
    if stop_reason(evaluations(trainer.state), settings) is None:
        resume(trainer, work)

    history = evaluations(trainer.state)
    reason = stop_reason(history, settings)
    assert reason is not None
    step = taken_step(history, reason, settings)
    kept = [*(planned for planned in snapshot_steps(settings) if planned < step), step]

    def extra(folder: Path) -> None:
        write_json_lines(folder / "completions.jsonl", scoring.records)
        for path in map(snapshots.path, kept):
            shutil.copytree(path, folder / "snapshots" / path.name)

    return finish(
        family,
        "rlhf",
        recipe,
        merged(sft, snapshots.path(step)),
        tokenizer,
        corpus=corpus.sha256,
        parent=sft,
        steps=step,
        seconds=clock.seconds,
        figures=figures(history, step, reason),
        metrics=[readable(record) for record in metrics(trainer)],
        samples=samples.records,
        extra=extra,
    )


def algorithm(recipe: Recipe, work: Path) -> tuple[Any, Any]:
    """The trainer's class and its settings: one policy update for each batch of sampled answers."""
    settings = recipe.rlhf
    shared = trainer_arguments(
        work,
        seed=recipe.seed,
        save_every=settings.evaluate_every,
        learning_rate=settings.learning_rate,
        batch_size=settings.prompts_per_step * settings.group_size,
        logging_steps=1,
        max_steps=settings.steps,
        lr_scheduler_type="linear",
        warmup_steps=0.05,
        num_generations=settings.group_size,
        max_completion_length=settings.max_new_tokens,
        temperature=settings.temperature,
        beta=settings.kl_coefficient,
        # The prompts of all steps stand one after another: a resumed run meets the same ones.
        shuffle_dataset=False,
        **optimizer(recipe),
    )
    if settings.algorithm == "rloo":
        return Rloo, RLOOConfig(**shared, normalize_advantages=True)
    return Grpo, GRPOConfig(**shared, loss_type="dr_grpo", scale_rewards="none")


class Grpo(GRPOTrainer):
    """TRL's trainer, with answers that are sampled here."""

    def _generate_single_turn(self, prompt_ids: list[list[int]], *_: Any, **__: Any) -> tuple[list[list[int]], None]:
        return sampled(self, prompt_ids), None


class Rloo(RLOOTrainer):
    """TRL's trainer, with answers that are sampled here."""

    def _generate_single_turn(self, prompt_ids: list[list[int]], *_: Any, **__: Any) -> list[list[int]]:
        return sampled(self, prompt_ids)


def sampled(trainer: Any, prompts: list[list[int]]) -> list[list[int]]:
    """An answer's tokens to each prompt, the stop token included, as rankings are sampled.

    TRL calls `generate`, which takes about twice as long on a CPU: see `tests/bench/sampling.py`.
    """
    import torch

    policy = trainer.accelerator.unwrap_model(trainer.model)
    # From the trainer's random state, which its saves keep.
    seeds = torch.randint(2**31, (len(prompts),)).tolist()
    decoding = Decoding(trainer.max_completion_length, trainer.temperature)
    return continuations(policy, prompts, decoding, stop_tokens(trainer.processing_class), seeds)


def training_prompts(corpus: Corpus, recipe: Recipe, tokenizer: Any) -> Dataset:
    """The held-in prompts of every step, in the order of training."""
    settings = recipe.rlhf
    prompts = with_room(policy_prompts(corpus, recipe), recipe, tokenizer)
    shown = islice(cycle(prompts), settings.steps * settings.prompts_per_step)
    return Dataset.from_list([{"prompt": [{"role": "user", "content": prompt.prompt}]} for prompt in shown])


def evaluation_prompts(corpus: Corpus, recipe: Recipe, tokenizer: Any) -> list[RankingPrompt]:
    """The held-out prompts on which the policy is checked, balanced over kinds."""
    prompts = with_room(held_out_prompts(corpus, recipe), recipe, tokenizer)
    return balanced([[prompt] for prompt in prompts], recipe.rlhf.evaluation_prompts, f"evaluation {recipe.seed}")


def with_room(prompts: list[RankingPrompt], recipe: Recipe, tokenizer: Any) -> list[RankingPrompt]:
    """The prompts that leave room for a whole answer in the model's context. Raises InputError if none does."""
    longest = recipe.context - recipe.rlhf.max_new_tokens
    fitting = [prompt for prompt in prompts if len(encode_prompt(tokenizer, prompt.prompt)) <= longest]
    if not fitting:
        raise InputError(
            "no prompt leaves room for an answer; lower 'rlhf.max_new_tokens' or raise 'model.context' in the recipe"
        )
    return fitting


class Scoring(TrainerCallback):
    """What the policy is rewarded for, and a record of it: one prompt's answers with their rewards a step."""

    def __init__(self, work: Path, reward: RewardModel, settings: RlhfSettings) -> None:
        self.path = work / "completions.jsonl"
        self.reward = reward
        self.settings = settings
        self.records = earlier(self.path, saved_step(work))
        self.begin = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.begin = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if is_check(state.global_step, self.settings) and processes.is_main():
            write_json_lines(self.path, self.records)

    def preference(
        self, prompts: Any, completions: Any, completion_ids: Any, trainer_state: Any, log_metric: Any, **_: Any
    ) -> list[float]:
        """The reward model's score, unrounded, of each answer as if it were finished."""
        sampled = time.perf_counter()
        texts = [completion[0]["content"].removeprefix(" ") for completion in completions]
        asked = [prompt[0]["content"] for prompt in prompts]
        rewards = self.reward.scores(list(zip(asked, texts, strict=True)))
        log_metric("sampling_seconds", sampled - self.begin)
        log_metric("scoring_seconds", time.perf_counter() - sampled)
        group = zip(texts, self.stopped(completion_ids), rewards, strict=True)
        self.records.append(
            {
                "step": trainer_state.global_step + 1,
                "prompt": asked[0],
                "completions": [
                    {"text": text, "stopped": stopped, "reward": reward}
                    for text, stopped, reward in islice(group, self.settings.group_size)
                ],
            }
        )
        return rewards

    def unfinished(self, completion_ids: Any, **_: Any) -> list[float]:
        """A penalty for an answer cut at the limit, which the reward model cannot see: it reads all as finished."""
        return [0.0 if stopped else -self.settings.unfinished_penalty for stopped in self.stopped(completion_ids)]

    def stopped(self, completion_ids: list[list[int]]) -> list[bool]:
        stop = stop_tokens(self.reward.tokenizer)
        return [tokens[-1] in stop for tokens in completion_ids]


class HeldOutChecks(TrainerCallback):
    """Asks the policy held-out prompts at regular steps, compares its answers with SFT's, and says when to stop.

    At step 0 the policy is SFT, so the first check keeps SFT's answers. Answers are sampled as in training,
    with a fixed seed: the KL divergence is one of the distribution, not of its likeliest answers, and the
    random state of the training run is left alone. The annotator grades without noise.
    """

    def __init__(
        self, work: Path, prompts: list[RankingPrompt], tokenizer: Any, reward: RewardModel, recipe: Recipe
    ) -> None:
        self.path = work / "sft-grades.jsonl"
        self.prompts = prompts
        self.encoded = [encode_prompt(tokenizer, prompt.prompt) for prompt in prompts]
        self.tokenizer = tokenizer
        self.end = tokenizer.convert_tokens_to_ids(END)
        self.reward = reward
        self.settings = recipe.rlhf
        self.decoding = Decoding(self.settings.max_new_tokens, self.settings.temperature, seed=recipe.seed)
        self.annotator = Annotator(noise=0.0, seed=recipe.seed)

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if state.global_step == 0:
            self.check(state, model)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if is_check(state.global_step, self.settings):
            self.check(state, model)
            control.should_training_stop = stop_reason(evaluations(state), self.settings) is not None

    def check(self, state: Any, model: Any) -> None:
        """Append one evaluation to the trainer's log, which its saves keep."""
        completions = complete(model, self.encoded, self.decoding, stop_tokens(self.tokenizer))
        texts = [decode_answer(self.tokenizer, completion.tokens) for completion in completions]
        grades = [
            self.annotator.grade(prompt, text, completion.stopped).overall
            for prompt, text, completion in zip(self.prompts, texts, completions, strict=True)
        ]
        if state.global_step == 0 and processes.is_main():
            write_json_lines(self.path, [{"grade": grade} for grade in grades])
        processes.wait()
        sft_grades = [record["grade"] for record in read_json_lines(self.path)]
        harmful = [declines(text) for prompt, text in zip(self.prompts, texts, strict=True) if prompt.kind == "harmful"]
        exchanges = [(prompt.prompt, text) for prompt, text in zip(self.prompts, texts, strict=True)]
        state.log_history.append(
            {
                "step": state.global_step,
                WIN_RATE: win_rate(grades, sft_grades),
                "held_out_reward": fmean(self.reward.scores(exchanges)),
                "held_out_grade": fmean(grades),
                "held_out_kl": divergence_from_start(
                    model, self.encoded, completions, self.end, self.settings.temperature
                ),
                "held_out_length": fmean(len(completion.tokens) for completion in completions),
                "held_out_unfinished": fmean(not completion.stopped for completion in completions),
            }
            | ({"held_out_declined_harmful": fmean(harmful)} if harmful else {})
        )


class Snapshots(TrainerCallback):
    """Keeps the adapter at the steps of the time line, and wherever the policy is checked."""

    def __init__(self, work: Path, settings: RlhfSettings) -> None:
        self.folder = work / "snapshots"
        self.settings = settings

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:04d}"

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        step = state.global_step
        kept = is_check(step, self.settings) or step in snapshot_steps(self.settings)
        if kept and processes.is_main():
            with writing(self.path(step)) as folder:
                save_adapter(model, folder, "../../../sft")


def merged(sft: Checkpoint, snapshot: Path) -> Any:
    """The SFT model with a snapshot's adapter added to its weights."""
    model = AutoModelForCausalLM.from_pretrained(sft.path, dtype="float32")
    return PeftModel.from_pretrained(model, snapshot).merge_and_unload()


def win_rate(grades: list[float], rivals: list[float]) -> float:
    """Share of prompts on which the first is graded higher; what the annotator cannot tell apart counts half."""
    leads = [grade - rival for grade, rival in zip(grades, rivals, strict=True)]
    return fmean(0.5 if abs(lead) <= TIE else float(lead > 0) for lead in leads)


def is_check(step: int, settings: RlhfSettings) -> bool:
    return step % settings.evaluate_every == 0 or step == settings.steps


def snapshot_steps(settings: RlhfSettings) -> list[int]:
    """Evenly spaced steps, the last one included."""
    count = min(settings.snapshots, settings.steps)
    return [round(settings.steps * number / count) for number in range(1, count + 1)]


def evaluations(state: Any) -> list[Record]:
    return [record for record in state.log_history if WIN_RATE in record]


def stop_reason(history: list[Record], settings: RlhfSettings) -> str | None:
    """Why training ends with the newest of its evaluations; None if it goes on."""
    if not history:
        return None
    newest = history[-1]
    if newest["held_out_kl"] > settings.kl_budget:
        return "KL budget"
    if max(record[WIN_RATE] for record in history) - newest[WIN_RATE] > settings.win_rate_drop:
        return "win rate fell"
    if settings.target_reward is not None and newest["held_out_reward"] >= settings.target_reward:
        return "target reward"
    return "step budget" if newest["step"] >= settings.steps else None


def taken_step(history: list[Record], reason: str, settings: RlhfSettings) -> int:
    """The step whose weights become the checkpoint: the last one, unless the policy went astray.

    Then it is the evaluated step with the highest win rate among those within the KL budget, or the
    earliest if none is. Step 0 is SFT itself and does not count.
    """
    trained = [record for record in history if record["step"] > 0]
    if reason not in ("KL budget", "win rate fell"):
        return trained[-1]["step"]
    within = [record for record in trained if record["held_out_kl"] <= settings.kl_budget] or trained[:1]
    return max(within, key=lambda record: record[WIN_RATE])["step"]


def figures(history: list[Record], step: int, reason: str) -> Record:
    """Why training stopped and when, and the held-out check of the taken step, beside SFT's where that differs.

    Rewards are the reward model's, grades the annotator's (0 to 1), the KL is in nats an answer.
    """
    sft = history[0]
    taken = next(record for record in history if record["step"] == step)
    compared = ("held_out_reward", "held_out_grade", "held_out_declined_harmful", "held_out_length")
    return (
        {"stopped_by": reason, "steps_trained": history[-1]["step"]}
        | {name: value for name, value in taken.items() if name != "step"}
        | {f"sft_{name}": sft[name] for name in compared if name in sft}
    )


def readable(record: Record) -> Record:
    """One line of `metrics.jsonl`: an evaluation as it is, a training step under our names.

    `kl` is in nats an answer, as in the evaluations; `sampling_seconds` holds the reference's pass too.
    """
    if WIN_RATE in record:
        return record
    step = {"step": record["step"]} | {name: record[logged] for name, logged in LOGGED.items()}
    step["update_seconds"] = record["step_time"] - record["sampling_seconds"] - record["scoring_seconds"]
    if "kl" in record:
        step["kl"] = record["kl"] * record["completions/mean_length"]
    return step


def earlier(path: Path, step: int) -> list[Record]:
    """What a resumed run had recorded up to the step from which it goes on."""
    return [record for record in read_json_lines(path) if record["step"] <= step] if step else []
