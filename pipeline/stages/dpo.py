"""DPO: the SFT model learns the annotators' preference directly, without a reward model.

From the rankings that trained the reward model it learns to make the better answer of two likelier, and
the worse one less likely, than the SFT model did. It ends near where RLHF does for the price of another
fine-tune. But it learns from answers that were written before it began: it never meets the mistakes that it
makes itself, and it may grow surer of a preference than the rankings warrant.
"""

from typing import Any

from datasets import Dataset
from transformers import AutoTokenizer
from trl import DPOConfig, DPOTrainer

from pipeline.adapters import four_bit, low_rank, merged, optimizer
from pipeline.batching import every_epoch, in_similar_batches
from pipeline.chat_format import encode_answer, encode_prompt
from pipeline.checkpoint import Checkpoint, Family
from pipeline.corpus.preferences import fitting, pairs
from pipeline.errors import InputError
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

Ranking = dict[str, Any]
TokenPair = dict[str, list[int]]


class TokenPairTrainer(DPOTrainer):
    """A DPOTrainer for pairs of token ids.

    Its own preparation tokenises text and would end every answer with the end token, cut ones too.
    """

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset


def run(recipe: Recipe, family: Family) -> Checkpoint:
    """Train on pairs of ranked answers, with SFT as the reference (Rafailov et al. 2023, arXiv:2305.18290).

    The preference can be had by making both answers less likely, the worse one more so, until neither is said
    any more: the better answer is imitated beside it (Pang et al. 2024, arXiv:2404.19733).
    Answers are taken as their model wrote them: one that was cut at the limit has no end token.
    Resumes from the newest save in the work folder. Raises InputError when SFT or the rankings are
    missing, or when no pair of answers is left to train or to test on.
    """
    keep_memory()
    settings = recipe.dpo
    sft, ranked = family.checkpoint("sft"), family.checkpoint("ranking")
    tokenizer = AutoTokenizer.from_pretrained(sft.path)
    rankings = [fitting(ranking, tokenizer, recipe.context) for ranking in ranked.lines("rankings.jsonl")]
    training = token_pairs(rankings, "train", tokenizer, recipe.seed)
    test = token_pairs(rankings, "test", tokenizer, recipe.seed)
    if not training or not test:
        raise InputError("too few rankings tell two answers apart; raise 'ranking.prompts' in the recipe")
    shown = in_similar_batches(
        every_epoch(training, settings.epochs, recipe.seed), length, settings.batch_size, recipe.seed
    )

    work = family.work("dpo")
    clock, samples = Clock(work), Samples(work, tokenizer, settings.save_every)
    arguments = trainer_arguments(
        work,
        seed=recipe.seed,
        save_every=settings.save_every,
        learning_rate=settings.learning_rate,
        batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        beta=settings.beta,
        loss_type=["sigmoid", "sft"],
        loss_weights=[1.0, settings.imitation],
        lr_scheduler_type="linear",
        warmup_steps=0.05,
        # The pairs of all epochs stand one after another, in an order that is made here.
        num_train_epochs=1,
        train_sampling_strategy="sequential",
        max_length=None,
        **optimizer(recipe),
    )
    trainer = TokenPairTrainer(
        model=str(sft.path),
        args=DPOConfig(**arguments),
        train_dataset=Dataset.from_list(shown),
        processing_class=tokenizer,
        peft_config=low_rank(settings.lora),
        quantization_config=four_bit(recipe),
        callbacks=[Progress("dpo"), samples, StopOnNaN(), clock],
    )
    resume(trainer, work)
    measured = trainer.evaluate(Dataset.from_list(test))
    return finish(
        family,
        "dpo",
        recipe,
        merged(trainer.model, sft),
        tokenizer,
        corpus=ranked.record["corpus"]["sha256"],
        parent=sft,
        steps=trainer.state.global_step,
        seconds=clock.seconds,
        figures=figures(measured, settings.beta) | {"training_pairs": len(training), "held_out_pairs": len(test)},
        metrics=metrics(trainer),
        samples=samples.records,
    )


def token_pairs(rankings: list[Ranking], split: str, tokenizer: Any, seed: int) -> list[TokenPair]:
    """Of each ranking of a split the two answers that are furthest apart, as token ids.

    An answer that loses here because it answers another question well must not become less likely there.
    """
    return [
        {
            "prompt_ids": encode_prompt(tokenizer, ranking["prompt"], ranking.get("earlier", ())),
            "chosen_ids": encode_answer(tokenizer, better["text"], better["stopped"]),
            "rejected_ids": encode_answer(tokenizer, worse["text"], worse["stopped"]),
        }
        for ranking in rankings
        if ranking["split"] == split
        for better, worse in furthest([pair for pair in pairs(ranking, seed) if pair[1]["source"] != "other"])
    ]


def furthest(ranked: list[tuple[dict[str, Any], dict[str, Any]]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The one pair with most ranks between, or none where all answers are as good."""
    return sorted(ranked, key=lambda pair: pair[0]["rank"] - pair[1]["rank"])[:1]


def length(pair: TokenPair) -> int:
    return len(pair["prompt_ids"]) + max(len(pair["chosen_ids"]), len(pair["rejected_ids"]))


def figures(measured: dict[str, float], beta: float) -> dict[str, float]:
    """What the evaluation on held-out rankings says.

    DPO's implicit reward of an answer is beta times the shift of its log-probability from SFT's.
    `held_out_accuracy` is the share of pairs whose better answer has the higher one, `margin` the mean
    difference; the shifts are in nats an answer, and say how far the policy has moved.
    """
    return {
        "held_out_loss": measured["eval_loss"],
        "held_out_accuracy": measured["eval_rewards/accuracies"],
        "margin": measured["eval_rewards/margins"],
        "logprob_shift_of_better": measured["eval_rewards/chosen"] / beta,
        "logprob_shift_of_worse": measured["eval_rewards/rejected"] / beta,
    }
