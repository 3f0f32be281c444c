"""What a run would take, before anything is downloaded or trained: repositories, parameters, tokens, memory, time."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from pipeline.adapters import is_four_bit, low_rank
from pipeline.corpus.cards import load_corpus
from pipeline.corpus.conversations import demonstrations
from pipeline.corpus.ranking_prompts import ranking_prompts
from pipeline.errors import InputError
from pipeline.precision import matrix_rate
from pipeline.publish.hub import clear_errors
from pipeline.recipe import BaseSettings, LoraSettings, PretrainedSettings, Recipe
from pipeline.stages import reward

CHARACTERS = 4  # of English in a token of a large vocabulary; small ones have nearer 3
TEMPLATE_TOKENS = 4  # of one exchange
PUBLIC_TOKENS = 200  # of one row of a public set, at a guess
ADAM = 16  # bytes of a trained parameter in float32: itself, its gradient, and two means
ACTIVATIONS = 34  # bytes of a token and layer, for each unit of width, in 16 bits (Korthikanti et al. 2022)
HOW = f"""\
How this is estimated. Tokens: a token for every {CHARACTERS} characters, answers at their greatest length, and
{PUBLIC_TOKENS} tokens for a row of a public set, all of whose rows count. Memory: {ADAM} bytes a trained parameter
(float32 with Adam), 4 a frozen one (0.5 in 4 bits), {ACTIVATIONS} times width and layers a token of a batch, and the
logits. Time: floating-point operations through the rate of a matrix product, measured here and now. Training costs
6 a parameter and token, 4 where only an adapter is trained, reading and writing 2. No run reaches the full rate:
take twice the time for training, and more for writing answers."""


@dataclass(frozen=True)
class Work:
    """What a stage does: tokens trained on, read or written without training, the longest batch, and its adapter."""

    stage: str
    trained: int
    read: int
    batch: int
    lora: LoraSettings | None


def plan(recipe: Recipe, stages: list[str]) -> Iterator[str]:
    """The lines of a dry run. What cannot be known without the Hub is said in one of them."""
    for kind, name, revision in recipe.repositories:
        yield f"download: {kind} {name} at {revision}"
    if not recipe.repositories:
        yield "download: nothing"
    work = [each for each in works(recipe) if each.stage in stages]
    try:
        model = empty_model(recipe)
    except InputError as error:
        yield f"parameters, memory and time are not known: {error}"
        for each in work:
            yield f"{each.stage}: {each.trained:,} tokens trained on, {each.read:,} more read or written"
        return
    rate = matrix_rate()
    yield f"parameters: {model.num_parameters():,}"
    for each in work:
        yield line(each, model, recipe, rate)
    yield f"matrix rate of this machine: {rate / 1e9:,.0f} GFLOP/s"
    yield HOW


def line(work: Work, model: Any, recipe: Recipe, rate: float) -> str:
    """One stage: tokens, parameters that are trained, memory, and time at the full matrix rate."""
    whole = model.num_parameters()
    trained = adapter_parameters(recipe, work.lora) if work.lora else whole
    operations = whole * (work.trained * (4 if work.lora else 6) + work.read * 2)
    training = f"{trained:,} parameters trained, " if work.trained else ""
    return (
        f"{work.stage}: {work.trained:,} tokens trained on, {work.read:,} more read or written, {training}"
        f"{memory(work, model, trained, is_four_bit(recipe)) / 1e9:.1f} GB, {duration(operations / rate)} or more"
    )


def memory(work: Work, model: Any, trained: int, four_bit: bool) -> float:
    """Bytes, roughly."""
    config, whole = model.config.get_text_config(), model.num_parameters()
    embeddings = model.get_input_embeddings().weight.numel() * (1 if config.tie_word_embeddings else 2)
    layers = 0.5 * (whole - embeddings) + 4 * embeddings if four_bit else 4 * whole
    weights = ADAM * whole if work.trained and not work.lora else layers + ADAM * trained * bool(work.trained)
    token = ACTIVATIONS * config.hidden_size * config.num_hidden_layers + 8 * config.vocab_size
    return weights + work.batch * token * bool(work.trained)


def works(recipe: Recipe) -> list[Work]:
    """The work of every stage but the tokenizer, whose own is little."""
    corpus = load_corpus(recipe.corpus)
    epochs = range(recipe.sft.epochs)
    shown = [each for epoch in epochs for each in demonstrations(corpus, recipe, epoch)]
    shown_tokens = sum(tokens(each.prompt) + tokens(each.answer) + TEMPLATE_TOKENS for each in shown)
    prompts = ranking_prompts(corpus, recipe)
    asked = round(fmean(tokens(prompt.prompt) + TEMPLATE_TOKENS for prompt in prompts))
    settings, policy = recipe.ranking, recipe.rlhf
    exchange = asked + settings.max_new_tokens
    # References are a good, a weak and a bad answer, and one that holds back.
    ranked = settings.answers + 4 * settings.references
    pairs = len(prompts) * ranked * (ranked - 1) // 2
    public = sum(source.rows or 15_000 for source in settings.preferences)
    per_pair = 2 * exchange
    reward_pairs = min(pairs, len(prompts) * reward.MOST_PAIRS)
    sampled = policy.steps * policy.prompts_per_step * policy.group_size * (asked + policy.max_new_tokens)
    preferred = 2 * PUBLIC_TOKENS * public
    return [
        base_work(recipe),
        Work(
            "sft",
            shown_tokens + PUBLIC_TOKENS * sum(source.rows or 15_000 for source in recipe.sft.instructions),
            0,
            recipe.sft.batch_size * min(recipe.context, PUBLIC_TOKENS),
            recipe.sft.lora,
        ),
        Work("ranking", 0, len(prompts) * settings.answers * exchange, 0, None),
        Work(
            "reward",
            recipe.reward.epochs * (reward_pairs * per_pair + preferred),
            0,
            recipe.reward.batch_size * per_pair,
            recipe.reward.lora,
        ),
        # Besides, the reward model and the reference read each answer.
        Work(
            "rlhf",
            sampled,
            3 * sampled,
            policy.prompts_per_step * policy.group_size * (asked + policy.max_new_tokens),
            policy.lora,
        ),
        Work(
            "dpo",
            recipe.dpo.epochs * (len(prompts) * per_pair + preferred),
            recipe.dpo.epochs * (len(prompts) * per_pair + preferred),
            recipe.dpo.batch_size * per_pair,
            recipe.dpo.lora,
        ),
    ]


def base_work(recipe: Recipe) -> Work:
    if not isinstance(recipe.base, BaseSettings):
        return Work("base", 0, 0, 0, None)
    return Work("base", sum(recipe.base.periods), 0, recipe.base.batch_size * recipe.context, None)


def tokens(text: str) -> int:
    return -(-len(text) // CHARACTERS)


def empty_model(recipe: Recipe) -> Any:
    """The model's shape, without weights. Raises InputError when it stands on the Hub, and that cannot be reached."""
    import torch
    from huggingface_hub import hf_hub_download
    from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig

    if isinstance(recipe.base, PretrainedSettings):
        name = recipe.base.pretrained
        with clear_errors(name):
            config = AutoConfig.from_pretrained(hf_hub_download(name, "config.json", revision=recipe.base.revision))
    else:
        assert recipe.model is not None
        assert recipe.tokenizer is not None
        config = LlamaConfig(
            vocab_size=recipe.tokenizer.vocabulary_size,
            hidden_size=recipe.model.hidden_size,
            intermediate_size=recipe.model.intermediate_size,
            num_hidden_layers=recipe.model.layers,
            num_attention_heads=recipe.model.heads,
            tie_word_embeddings=True,
        )
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def adapter_parameters(recipe: Recipe, lora: LoraSettings) -> int:
    """Parameters of an adapter on the model."""
    from peft import get_peft_model

    config: Any = low_rank(lora)
    adapted: Any = get_peft_model(empty_model(recipe), config, low_cpu_mem_usage=True)
    trained, _ = adapted.get_nb_trainable_parameters()
    return int(trained)


def duration(seconds: float) -> str:
    for size, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.2g} {name}"
    return f"{seconds:.0f} seconds"
