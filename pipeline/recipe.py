"""What a recipe may say: one YAML file that describes a whole run.

A recipe is read once, checked completely, and never changed: a stage that wants a number takes it
from here, so that `stage.json` can name the recipe by its hash.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline.errors import InputError

RECIPES = Path(__file__).parent / "recipes"
REPOSITORY = Path(__file__).parent.parent


# The sections of a recipe that decide what each stage becomes.
TOKENIZER = ("corpus", "tokenizer")
BASE = (*TOKENIZER, "model", "base")
SFT = (*BASE, "sft")
RANKING = (*SFT, "ranking")
REWARD = (*RANKING, "reward")
DECIDES = {
    "tokenizer": TOKENIZER,
    "base": BASE,
    "sft": SFT,
    "ranking": RANKING,
    "reward": REWARD,
    "rlhf": (*REWARD, "rlhf"),
    "dpo": (*RANKING, "dpo"),
}


class Section(BaseModel):
    """A part of a recipe: no unknown keys, no silent conversions, no changes afterwards."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def left_out(**more: Any) -> Any:
    """A key that may be missing, and then counts for no digest: recipes from before it keep theirs."""
    return Field(None, exclude_if=lambda value: value is None, **more)


class Source(Section):
    """Rows of real text: a local file or folder, or a dataset on the Hub. `kind` is the form of a row."""

    name: str
    kind: str
    licence: str
    path: str | None = Field(None, description="Parquet or JSON Lines, relative to the repository")
    dataset: str | None = Field(None, description="dataset id on the Hub")
    config: str | None = None
    revision: str | None = None
    split: str = "train"
    rows: int | None = Field(None, gt=0, description="read at most this many rows")

    @model_validator(mode="after")
    def one_place(self) -> "Source":
        if (self.path is None) == (self.dataset is None):
            raise ValueError("wants exactly one of 'path' and 'dataset'")
        if self.dataset is not None and self.revision is None:
            raise ValueError("a Hub dataset wants a pinned 'revision'")
        return self


class DocumentSource(Source):
    """Text for the base stage.

    The columns of a kind: `prose` (text, title), `quiz` (question, answer, choices), `dialogue` (turns),
    `instructions` (instruction, context, response).
    """

    kind: Literal["prose", "quiz", "dialogue", "instructions"]
    share: float = Field(gt=0, lt=1, description="share of the base stage's documents")


class ConversationSource(Source):
    """Conversations for SFT: `instructions` (instruction, context, response) or `messages` (messages)."""

    kind: Literal["instructions", "messages"]


class PreferenceSource(Source):
    """Two answers of which people preferred one (chosen, rejected), each with all that was said before it.

    `transcripts` are one text each, `messages` a list.
    """

    kind: Literal["transcripts", "messages"]


class CorpusSettings(Section):
    """Where the text comes from, and what is held out of training."""

    cards: str = "assets/corpus"
    domains: list[str] | None = Field(None, description="only the cards of these domains; null for all")
    held_out_cards: float = Field(ge=0, lt=1, description="share of cards whose questions are never trained on")
    held_out_wordings: float = Field(ge=0, lt=1, description="share of each question's prompts never trained on")
    sources: list[DocumentSource] = []

    @model_validator(mode="after")
    def authored_text_remains(self) -> "CorpusSettings":
        if sum(source.share for source in self.sources) >= 1:
            raise ValueError("the shares of all sources must leave room for authored text (sum below 1)")
        return self


class TokenizerSettings(Section):
    vocabulary_size: int = Field(ge=300, le=60_000)
    documents: int = Field(gt=0, description="documents that the vocabulary is learned from")


class ModelSettings(Section):
    """The shape of the Llama-architecture model, shared by every stage."""

    hidden_size: int = Field(gt=0)
    layers: int = Field(gt=0)
    heads: int = Field(gt=0)
    intermediate_size: int = Field(gt=0)
    context: int = Field(ge=64, description="tokens that the model can see at once")

    @model_validator(mode="after")
    def heads_divide(self) -> "ModelSettings":
        if self.hidden_size % (2 * self.heads):
            raise ValueError("'hidden_size' must be an even multiple of 'heads'")
        return self


class LoraSettings(Section):
    """Low-rank adapters in place of full fine-tuning (Hu et al. 2021, arXiv:2106.09685)."""

    rank: int = Field(gt=0)
    alpha: int = Field(gt=0)


class BaseSettings(Section):
    """A base that is trained here, from random numbers."""

    tokens: int | list[int] = Field(description="training budget in tokens, or one for each period")
    batch_size: int = Field(gt=0, description="blocks of `context` tokens a step")
    muon_learning_rate: float = Field(gt=0)
    adamw_learning_rate: float = Field(gt=0)
    warmup: float = Field(ge=0, le=1, description="share of the steps")
    decay: float = Field(ge=0, le=1, description="share of the steps")
    last_rate: float | None = left_out(
        gt=0, le=1, description="share of the learning rates at which the last of several periods begins to decay"
    )
    compile: bool
    save_every: int = Field(gt=0, description="steps")
    sample_every: int = Field(gt=0, description="steps")

    @field_validator("tokens", mode="plain")
    @classmethod
    def one_or_several(cls, value: Any) -> int | list[int]:
        """One period reads the same however it is written: a recipe's digest must not tell."""
        periods = value if isinstance(value, list) else [value]
        if not periods or any(type(tokens) is not int or tokens < 1 for tokens in periods):
            raise ValueError("wants a whole number above 0, or a list of such, one for each period")
        return periods[0] if len(periods) == 1 else periods

    @property
    def periods(self) -> list[int]:
        """The budget of each period, in tokens."""
        return self.tokens if isinstance(self.tokens, list) else [self.tokens]


class PretrainedSettings(Section):
    """A base that others have trained, with the tokenizer that it was trained with."""

    pretrained: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$", description="OWNER/NAME on the Hub")
    revision: str = Field(min_length=1, description="commit or tag")
    context: int = Field(512, ge=64, description="tokens of the longest conversation that is trained on")
    four_bit: bool = Field(False, description="adapters are trained on weights that are rounded to 4 bits")


class Shares(Section):
    """How often a trainer's demonstration is weak or bad; the rest is good."""

    weak: float = Field(ge=0, le=1)
    bad: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def good_remains(self) -> "Shares":
        if self.weak + self.bad > 1:
            raise ValueError("'weak' and 'bad' together exceed 1")
        return self


class DemonstrationShares(Section):
    """How uneven the trainers are who wrote the SFT demonstrations."""

    trainers: int = Field(description="seed of who answered which question")
    usual: Shares
    harmful: Shares = Field(description="bad: complies, without content")
    yesno: Shares = Field(description="bad: confirms the myth or denies the fact")
    unknowable: Shares = Field(description="kinds realtime, personal and unknown; bad: makes something up")


class SftSettings(Section):
    demonstrations: DemonstrationShares
    instructions: list[ConversationSource] = Field([], description="plain conversations from real sets")
    prompts_per_question: int = Field(gt=0, description="wordings of one question used in one epoch")
    fewest_wordings: int | None = left_out(gt=0, description="knowledge that is asked in fewer is left to base")
    epochs: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    muon_learning_rate: float | None = left_out(gt=0, description="of the hidden matrices, which Muon then trains")
    base_share: float | None = left_out(
        gt=0, lt=1, description="of base in what the embeddings and the first layer end as"
    )
    lora: LoraSettings | None = None
    save_every: int = Field(gt=0)
    sample_every: int = Field(gt=0)


class RankingSettings(Section):
    prompts: int = Field(gt=0)
    answers: int = Field(ge=2, description="k sampled answers a prompt")
    references: bool = Field(description="the card's own graded answers join the ranked set")
    temperature: float = Field(gt=0)
    max_new_tokens: int = Field(gt=0)
    noise: float = Field(ge=0, description="standard deviation added to the annotator's grade (0 to 1)")
    batch_size: int = Field(gt=0)
    held_out: float = Field(gt=0, lt=1, description="share of rankings kept to test the reward model")
    preferences: list[PreferenceSource] = Field(
        [], exclude_if=lambda sources: not sources, description="what people preferred in real sets, ranked as well"
    )


class RewardSettings(Section):
    epochs: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    lora: LoraSettings | None = left_out()
    save_every: int = Field(gt=0)


class RlhfSettings(Section):
    algorithm: Literal["grpo", "rloo"] = "grpo"
    steps: int = Field(gt=0)
    prompts_per_step: int = Field(gt=0)
    group_size: int = Field(ge=2, description="answers sampled for one prompt")
    max_new_tokens: int = Field(gt=0)
    temperature: float = Field(gt=0)
    learning_rate: float = Field(gt=0)
    kl_coefficient: float = Field(ge=0)
    unfinished_penalty: float = Field(ge=0, description="taken from the reward of an answer cut at the limit")
    lora: LoraSettings
    snapshots: int = Field(gt=0, description="adapters kept for the time line")
    evaluate_every: int = Field(gt=0, description="steps between held-out checks; also when training state is saved")
    evaluation_prompts: int = Field(gt=0)
    target_reward: float | None = Field(None, description="stop when the mean reward reaches this")
    kl_budget: float = Field(gt=0, description="stop when the mean KL from SFT (nats an answer) exceeds this")
    win_rate_drop: float = Field(gt=0, le=1, description="stop when the win rate falls this far below its best")


class DpoSettings(Section):
    epochs: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    lora: LoraSettings | None = left_out()
    beta: float = Field(gt=0)
    imitation: float = Field(ge=0, description="weight of the SFT loss on the better answer, beside the preference's")
    save_every: int = Field(gt=0)


class RoomRewardSettings(Section):
    """How the votes of a room retrain the reward model."""

    original_share: float = Field(0.5, ge=0, lt=1, description="share of pairs from the original rankings")
    epochs: int = Field(3, gt=0)
    batch_size: int = Field(16, gt=0)
    learning_rate: float = Field(0.001, gt=0)
    lora: LoraSettings = LoraSettings(rank=16, alpha=32)


class RoomPolicySettings(Section):
    """How a room moves the policy: few steps, few answers, so that a class can wait for it."""

    prompts_per_step: int = Field(4, gt=0)
    group_size: int = Field(8, ge=2)
    max_new_tokens: int = Field(48, gt=0)
    learning_rate: float = Field(0.001, gt=0)
    watch_every: int = Field(5, gt=0, description="steps between answers to the fixed prompts")


class RoomSettings(Section):
    """People in the loop: what is trained on a room's votes."""

    reward: RoomRewardSettings = RoomRewardSettings()
    policy: RoomPolicySettings = RoomPolicySettings()


class Recipe(Section):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    description: str
    seed: int
    corpus: CorpusSettings
    tokenizer: TokenizerSettings | None = left_out()
    model: ModelSettings | None = left_out()
    base: BaseSettings | PretrainedSettings
    sft: SftSettings
    ranking: RankingSettings
    reward: RewardSettings
    rlhf: RlhfSettings
    dpo: DpoSettings
    rooms: RoomSettings = RoomSettings()

    @field_validator("base", mode="before")
    @classmethod
    def one_kind(cls, value: Any) -> BaseSettings | PretrainedSettings:
        """The union alone would name the keys of both kinds in its complaint about one."""
        if isinstance(value, dict) and "pretrained" in value:
            return PretrainedSettings.model_validate(value)
        return BaseSettings.model_validate(value)

    @model_validator(mode="after")
    def sections_suit_the_base(self) -> "Recipe":
        if isinstance(self.base, BaseSettings):
            if self.tokenizer is None or self.model is None:
                raise ValueError("a base that is trained here wants the sections 'tokenizer' and 'model'")
            return self
        if self.tokenizer or self.model or self.corpus.sources:
            raise ValueError("a pretrained base leaves no use for 'tokenizer', 'model' and 'corpus.sources'")
        if self.base.four_bit and not (self.sft.lora and self.reward.lora and self.dpo.lora):
            raise ValueError("weights in 4 bits cannot be trained: 'sft', 'reward' and 'dpo' want a 'lora' each")
        return self

    @model_validator(mode="after")
    def muon_trains_whole_matrices(self) -> "Recipe":
        if self.sft.lora and self.sft.muon_learning_rate:
            raise ValueError("'sft' wants either 'lora' or 'muon_learning_rate': an adapter is trained by AdamW")
        return self

    @model_validator(mode="after")
    def whole_weights_are_averaged(self) -> "Recipe":
        if self.sft.lora and self.sft.base_share:
            raise ValueError("'sft' wants either 'lora' or 'base_share': an adapter's 'alpha' holds it near base")
        return self

    @property
    def context(self) -> int:
        """Tokens of the longest text that is trained on."""
        if isinstance(self.base, PretrainedSettings):
            return self.base.context
        assert self.model is not None
        return self.model.context

    @property
    def sources(self) -> list[Source]:
        """All real text that the recipe names."""
        return [*self.corpus.sources, *self.sft.instructions, *self.ranking.preferences]

    @property
    def repositories(self) -> list[tuple[str, str, str]]:
        """(kind, OWNER/NAME, revision) of all that comes from the Hub; the kind is `model` or `dataset`."""
        found = {("dataset", source.dataset, source.revision or "") for source in self.sources if source.dataset}
        if isinstance(self.base, PretrainedSettings):
            found.add(("model", self.base.pretrained, self.base.revision))
        return sorted(found, reverse=True)

    def until_period(self, count: int) -> "Recipe":
        """The same recipe with the first `count` periods of the base stage alone."""
        assert isinstance(self.base, BaseSettings)
        settings = self.base.model_dump() | {"tokens": self.base.periods[:count]}
        if count < len(self.base.periods):
            settings.pop("last_rate", None)
        return self.model_copy(update={"base": BaseSettings(**settings)})

    def digest(self, stage: str) -> str:
        """SHA-256 of all that decides what a stage becomes: its settings and those of the stages before it.

        Changing how RLHF runs therefore leaves a trained base valid. Comments and key order do not count.
        """
        settings = self.model_dump(include={"seed", *DECIDES[stage]})
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def load_recipe(name: str) -> Recipe:
    """Read a bundled recipe by its name, or any recipe by the path of its YAML file.

    Raises InputError when it is missing, is not YAML, or has an unknown, missing or ill-typed key.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else RECIPES / f"{name}.yaml"
    if not path.is_file():
        bundled = ", ".join(sorted(file.stem for file in RECIPES.glob("*.yaml")))
        raise InputError(f"no recipe {name!r}; use one of {bundled}, or the path of a .yaml file")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{path}: {describe(error)}") from error


def describe(error: ValidationError) -> str:
    """The first problem of a failed validation in one line that names the key."""
    problem: Any = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in problem["loc"]) or "the file"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if problem["type"] == "extra_forbidden":
        return f"unknown key {key!r}; remove it or check its spelling{more}"
    if problem["type"] == "missing":
        return f"key {key!r} is missing{more}"
    return f"key {key!r}: {problem['msg']}, found {problem['input']!r:.60}{more}"
