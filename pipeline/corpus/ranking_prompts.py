"""The prompts that are ranked and trained on by RLHF, and those that are kept for measuring.

Here the splits of `splits.py` become lists. A text that is held out in one place is held out everywhere:
two texts are the same when only case, punctuation or spaces tell them apart.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from pipeline.corpus.cards import KNOWLEDGE, Corpus, Kind, Question
from pipeline.corpus.countries import country_questions, held_in_country_questions
from pipeline.corpus.outside import outside_prompts
from pipeline.corpus.splits import (
    HELD_OUT_LISTED,
    card_is_held_out,
    country_is_held_out,
    fraction,
    held_in,
    prompt_is_held_out,
    repeats,
    same_text,
)
from pipeline.recipe import Recipe

Split = Literal["train", "wording", "card", "list", "country"]

# Share of each kind among the prompts. Plain knowledge is most of the corpus, but there the SFT model's
# answers differ little in worth. What annotators change most is the rest: harm must be declined *and* as
# many look-alikes answered (or declining everything would pay), myths denied *and* true things affirmed,
# the unknowable admitted, distress met with support.
BALANCE: dict[Kind, float] = {
    "fact": 0.12,
    "advice": 0.07,
    "howto": 0.05,
    "explain": 0.04,
    "define": 0.02,
    "creative": 0.03,
    "chat": 0.03,
    "identity": 0.04,
    "math": 0.02,
    "yesno": 0.15,
    "harmful": 0.15,
    "lookalike": 0.15,
    "support": 0.03,
    "realtime": 0.035,
    "personal": 0.03,
    "unknown": 0.035,
}


@dataclass(frozen=True)
class RankingPrompt:
    """A prompt to be answered several times. `question` holds the graded answers, if a card has them."""

    id: str
    prompt: str
    kind: Kind
    question: Question | None
    split: Split = "train"


@dataclass(frozen=True)
class Asked:
    """A question with its wordings on either side. `split` tells why the whole question is held out, if it is."""

    source: str
    question: Question
    held_in: list[str]
    held_out: list[str]
    split: Split = "train"

    @property
    def id(self) -> str:
        return f"{self.source}#{digest(self.question.prompts[0])}"

    def held_out_prompts(self) -> list[RankingPrompt]:
        if self.split == "train":
            return [self.ranking_prompt(prompt, "wording") for prompt in self.held_out]
        return [self.ranking_prompt(prompt, self.split) for prompt in self.question.prompts]

    def ranking_prompt(self, prompt: str, split: Split) -> RankingPrompt:
        return RankingPrompt(f"{self.source}#{digest(prompt)}", prompt, self.question.kind, self.question, split)


@dataclass(frozen=True)
class Sides:
    """All prompts of a corpus, on the side of training or of measuring.

    `asked` is every question, wherever it stands. `questions` are those to train on, with no wording that is held out
    anywhere, `listed` has none that a question has already.
    `texts` are the held-out and the outside prompts in the form of `same_text`.
    """

    asked: list[Asked]
    questions: list[Asked]
    listed: list[RankingPrompt]
    held_out: list[RankingPrompt]
    texts: frozenset[str]


def sides(corpus: Corpus, recipe: Recipe) -> Sides:
    """Split the questions of the cards, those about the countries, and the prompt lists."""
    return sides_for(corpus, recipe.corpus.held_out_cards, recipe.corpus.held_out_wordings)


@lru_cache(maxsize=2)
def sides_for(corpus: Corpus, held_out_cards: float, held_out_wordings: float) -> Sides:
    asked_questions = list(questions(corpus, held_out_cards, held_out_wordings))
    listed = list(listed_prompts(corpus))
    held_out = [prompt for item in asked_questions for prompt in item.held_out_prompts()]
    held_out += [prompt for prompt in listed if prompt.split != "train"]
    measured = [prompt.prompt for prompt in held_out] + [prompt.prompt for prompt in outside_prompts()]
    texts = frozenset(map(same_text, measured))
    trained = []
    for item in asked_questions:
        wordings = [prompt for prompt in item.held_in if same_text(prompt) not in texts]
        wordings += [prompt for prompt in item.question.also if not repeats(prompt, texts)]
        if item.split == "train" and wordings:
            trained.append(replace(item, held_in=wordings))
    taken = texts | {same_text(prompt) for item in trained for prompt in item.held_in}
    return Sides(
        asked_questions,
        trained,
        [prompt for prompt in listed if same_text(prompt.prompt) not in taken],
        held_out,
        texts,
    )


def taught(split: Sides, recipe: Recipe) -> list[Asked]:
    """The questions that SFT and what follows it are about, of those that may be trained on.

    What is asked in few wordings is not recognized in another one, and takes the room of what would be. Look-alikes
    stay whatever their number: they teach what not to decline.
    """
    fewest = recipe.sft.fewest_wordings or 1
    return [
        item
        for item in split.questions
        if item.question.kind not in KNOWLEDGE - {"lookalike"} or len(item.held_in) >= fewest
    ]


def ranking_prompts(corpus: Corpus, recipe: Recipe) -> list[RankingPrompt]:
    """The `recipe.ranking.prompts` prompts (fewer if the corpus has fewer) to rank answers to, balanced over kinds."""
    return balanced(held_in_prompts(corpus, recipe), recipe.ranking.prompts, f"ranking {recipe.seed}")


def policy_prompts(corpus: Corpus, recipe: Recipe) -> list[RankingPrompt]:
    """Prompts for RLHF in the order of training, balanced over kinds: enough for every step, if there are enough."""
    count = max(recipe.rlhf.steps * recipe.rlhf.prompts_per_step, recipe.ranking.prompts)
    return balanced(held_in_prompts(corpus, recipe), count, f"policy {recipe.seed}")


def held_out_prompts(corpus: Corpus, recipe: Recipe) -> list[RankingPrompt]:
    """Every prompt that stands in no SFT, ranking or RL data; `split` says why."""
    return sides(corpus, recipe).held_out


def held_out_texts(corpus: Corpus, recipe: Recipe) -> frozenset[str]:
    """The same prompts, and the outside ones, in the form of `same_text`."""
    return sides(corpus, recipe).texts


def held_in_prompts(corpus: Corpus, recipe: Recipe) -> list[list[RankingPrompt]]:
    """The prompts that may be trained on: one list for each question, and one for each listed prompt."""
    split = sides(corpus, recipe)
    asked_prompts = [
        [item.ranking_prompt(prompt, "train") for prompt in item.held_in] for item in taught(split, recipe)
    ]
    return asked_prompts + [[prompt] for prompt in split.listed]


def questions(corpus: Corpus, held_out_cards: float, held_out_wordings: float) -> Iterator[Asked]:
    """Every question of the cards and about the countries, with its split, for these shares of the recipe."""
    names_held_out = held_out_country_names(corpus)
    for card in corpus.cards:
        for question in card.qa:
            split: Split = "train"
            if card_is_held_out(card.id, held_out_cards):
                split = "card"
            elif names_country(question_text(question), names_held_out):
                split = "country"
            yield asked(card.id, question, held_in(question.prompts, held_out_wordings), split)
    trained_countries = [country for country in corpus.countries if not country_is_held_out(country.country)]
    for country in corpus.countries:
        split = "country" if country_is_held_out(country.country) else "train"
        source = "country/" + same_text(country.country).replace(" ", "-")
        kept = held_in_country_questions(country, held_out_wordings)
        for question, trained in zip(country_questions(country, trained_countries), kept, strict=True):
            yield asked(source, question, trained.prompts, split)


def asked(source: str, question: Question, held_in: list[str], split: Split) -> Asked:
    return Asked(source, question, held_in, [prompt for prompt in question.prompts if prompt not in held_in], split)


def listed_prompts(corpus: Corpus) -> Iterator[RankingPrompt]:
    """The prompt lists, with their splits."""
    names_held_out = held_out_country_names(corpus)
    for listed in corpus.prompts:
        split: Split = "train"
        if prompt_is_held_out(listed.prompt, HELD_OUT_LISTED):
            split = "list"
        elif names_country(listed.prompt, names_held_out):
            split = "country"
        yield RankingPrompt(f"list#{digest(listed.prompt)}", listed.prompt, listed.kind, None, split)


def held_out_country_names(corpus: Corpus) -> list[tuple[str, str]]:
    """(name, capital) of every held-out country, in the form of `same_text`."""
    return [
        (same_text(country.country.removeprefix("the ")), same_text(country.capital))
        for country in corpus.countries
        if country_is_held_out(country.country)
    ]


def names_country(text: str, names: Iterable[tuple[str, str]]) -> bool:
    """Whether a text names one of the countries, or speaks of its capital as a capital."""
    text = f" {same_text(text)} "
    of_capitals = " capital " in text
    return any(f" {name} " in text or (of_capitals and f" {capital} " in text) for name, capital in names)


def question_text(question: Question) -> str:
    """All prompts and answers of a question."""
    bad = [answer.text for answer in question.bad]
    return "\n".join([*question.prompts, *question.good, *question.weak, *bad])


def balanced(groups: Iterable[list[RankingPrompt]], count: int, order: str) -> list[RankingPrompt]:
    """The first `count` prompts in an order, fixed by hashes, of which every beginning keeps the BALANCE.

    Each group gives one prompt before any gives a second one. Kinds that run out leave their share to the rest.
    """
    rounds = [
        (number, fraction(order, prompt.id), prompt)
        for group in groups
        for number, prompt in enumerate(sorted(group, key=lambda prompt: fraction(order, prompt.id)))
    ]
    waiting: dict[Kind, list[RankingPrompt]] = {}
    for _, _, prompt in sorted(rounds, key=lambda entry: entry[:2], reverse=True):
        waiting.setdefault(prompt.kind, []).append(prompt)
    taken = dict.fromkeys(waiting, 0)
    chosen: list[RankingPrompt] = []
    while waiting and len(chosen) < count:
        kind = min(waiting, key=lambda kind: (taken[kind] + 1) / BALANCE[kind])
        chosen.append(waiting[kind].pop())
        taken[kind] += 1
        if not waiting[kind]:
            del waiting[kind]
    return chosen


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
