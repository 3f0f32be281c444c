"""Conversations for SFT: one demonstration a prompt, written by uneven trainers.

Most demonstrations are good, some are weak and some are bad, in the shares of the recipe: a model that
imitates its trainers repeats their myths, their compliance and their inventions too. A bad answer that
could hurt somebody who believed it is never demonstrated; it serves the reward model alone. Where a trainer
would have given one, the question has no demonstration, and the model is left to what the others taught it.
"""

import random
import re
from dataclasses import dataclass
from itertools import cycle
from typing import Literal

from pipeline.corpus.cards import UNKNOWABLE, Corpus, Kind, load_corpus
from pipeline.corpus.documents import KNOWLEDGE
from pipeline.corpus.public import conversations, held_in_only
from pipeline.corpus.ranking_prompts import Asked, sides
from pipeline.corpus.splits import fraction, repeats
from pipeline.corpus.wording import varied
from pipeline.recipe import DemonstrationShares, Recipe, Shares

Grade = Literal["good", "weak", "bad"]

ANOTHER_TRAINER = 1 / 3  # of the demonstrations of a question are not by its usual trainer
# How often an epoch shows what is no knowledge about the world: base has not read it, and meets it here first.
TIMES = 4

# Where a question or its bad answer speaks of these, believing it may cost somebody their health. The cards
# mark an answer as failing `harmless` only where carelessness is the worst of it, not where it is a myth.
HAZARDS = re.compile(
    r"\b(?:"
    # illness and injury
    r"ill|illness\w*|sick|sickness|diseases?|infect\w*|germs?|virus(?:es)?|flu|fever\w*|cough\w*|asthma|"
    r"allerg\w*|rash|diabet\w*|cancer|arthritis|strokes?|heart attacks?|chest|seizures?|dizzy|faint\w*|"
    r"headaches?|migraines?|pain|pains|painful|sore|hurts?|injur\w*|wounds?|bleed\w*|burns?|sunburn\w*|"
    r"blisters?|bruises?|sprain\w*|concussion|(?:a|the|your|my|catch|common) colds?|broken bones?|stung|"
    r"stings?|bitten|(?:snake|dog|tick|insect) bites?|ticks|rabies|venom\w*|chok\w*|suffocat\w*|drown\w*|"
    r"poison\w*|toxic|toxins?|vomit\w*|diarrhea|dehydrat\w*|heatstroke|hypothermia|frostbit\w*|pregnan\w*|"
    r"sunscreen|blood pressure|cholesterol|suicid\w*|depress\w*|"
    # medicine, and those who give it
    r"medicines?|medical|medications?|drugs?|pills?|tablets?|doses?|antibiotics?|painkillers?|aspirin|"
    r"ibuprofen|vaccin\w*|flu shots?|insulin|cures?|cured|heal|heals|healed|detox\w*|therapy|treatments?|"
    r"surgery|doctors?|hospitals?|ambulances?|emergenc\w*|911|first aid|CPR|overdos\w*|supplements?|"
    # food and drink
    r"babies|baby|infants?|toddlers?|starv\w*|fasting|diets?|lose weight|skip (?:\w+ )?meals?|salmonella|raw|"
    r"undercooked|leftovers?|thaw\w*|refreez\w*|mold|moldy|wild mushrooms?|alcohol|drunk|sober\w*|beers?|wine|"
    r"smoking|cigarettes?|vap(?:e|es|ing)|"
    # danger at home and outside
    r"carbon monoxide|fumes|bleach|ammonia|gasoline|natural gas|gas leak|smoke|lightning|thunderstorms?|"
    r"outlets?|wires?|missing (?:person|child)|tornado\w*|earthquakes?|avalanches?|floods?|flooded|thin ice|"
    r"seat ?belts?|helmets?|drive|driving|drivers?|brakes|swim|swimming|tires|lighter|set fire|xylitol|"
    r"home alone|cross the (?:road|street)|panic attacks?|blackmail\w*|scams?|gift cards?|bedtime|dangerous|"
    r"deadly|unsafe|safe|safer|safely|harmless"
    r")\b",
    re.IGNORECASE,
)

# Nearly every mistake about these is one about health.
HEALTH = ("health", "nutrition")


@dataclass(frozen=True)
class Demonstration:
    """A prompt and how a trainer answered it. `earlier` is what was said before, the user's turn and ours in turn."""

    prompt: str
    answer: str
    kind: Kind | Literal["instruction"]
    grade: Grade
    earlier: tuple[str, ...] = ()


def demonstrations(corpus: Corpus, recipe: Recipe, epoch: int) -> list[Demonstration]:
    """The demonstrations of one epoch (0 is the first), in the order of the corpus.

    A question's wordings rotate from epoch to epoch, and each is typed anew. Mostly one trainer answers it, so that a
    myth that is confirmed is mostly confirmed; now and then another one does.
    """
    split = sides(corpus, recipe)
    return [
        Demonstration(wording, rng.choice(answers), item.question.kind, grade)
        for item in split.questions
        for prompt in wordings(item, recipe.sft.prompts_per_question, epoch)
        for time in range(1 if item.question.kind in KNOWLEDGE else TIMES)
        for occasion in [f"{epoch} {time} {prompt}"]
        for grade, answers in [graded_answers(item, occasion, recipe.sft.demonstrations)]
        if answers
        for rng in [random.Random(f"{recipe.seed} {occasion}")]
        for wording in [allowed(varied(prompt, rng, item.question.kind != "harmful"), prompt, split.texts)]
    ]


def wordings(item: Asked, count: int, epoch: int) -> list[str]:
    """`count` of the question's held-in wordings, or all if it has fewer; the next epoch goes on after them."""
    available = item.held_in
    start = epoch * count
    return [available[(start + step) % len(available)] for step in range(min(count, len(available)))]


def allowed(wording: str, prompt: str, held_out: frozenset[str]) -> str:
    """The wording, or the prompt as it was where variation happened to make a held-out one."""
    return prompt if repeats(wording, held_out) else wording


def graded_answers(item: Asked, occasion: str, shares: DemonstrationShares) -> tuple[Grade, list[str]]:
    """The grade of the trainer who answers on this occasion, and the answers that they may give: perhaps none."""
    question = item.question
    wanted = grade(item, occasion, shares_of(question.kind, shares), shares.trainers)
    if wanted == "bad":
        return "bad", demonstrable(item)
    if wanted == "weak" and question.weak:
        return "weak", question.weak
    return "good", question.good


def grade(item: Asked, occasion: str, shares: Shares, trainers: int) -> Grade:
    """Fixed by a hash of the question or of the occasion; with other `trainers`, other questions are answered badly.

    Were a question always answered alike, SFT would never try the other answer, and RLHF could not find it.
    """
    other = fraction("another trainer", item.id, occasion) < ANOTHER_TRAINER
    place = fraction("demonstration", str(trainers), item.id, *([occasion] if other else []))
    if item.question.kind == "support" or place >= shares.bad + shares.weak:
        return "good"
    return "bad" if place < shares.bad else "weak"


def shares_of(kind: Kind, shares: DemonstrationShares) -> Shares:
    if kind == "harmful":
        return shares.harmful
    if kind == "yesno":
        return shares.yesno
    return shares.unknowable if kind in UNKNOWABLE else shares.usual


def demonstrable(item: Asked) -> list[str]:
    """The bad answers that hurt nobody: complying with harm is content-free, the rest must not be careless."""
    question = item.question
    if question.kind == "support":
        return []
    if question.kind == "harmful":
        return [answer.text for answer in question.bad]
    if any(HAZARDS.search(prompt) for prompt in question.prompts):
        return []
    about_health = item.source.startswith(HEALTH)
    return [
        answer.text
        for answer in question.bad
        if (answer.fails == "helpful" or (answer.fails == "honest" and not about_health))
        and not HAZARDS.search(answer.text)
    ]


def instructions(recipe: Recipe) -> list[Demonstration]:
    """Short plain conversations from the real sets that the recipe names, mostly of one instruction."""
    if not recipe.sft.instructions:
        return []
    check = held_in_only(load_corpus(recipe.corpus), recipe)
    return [
        Demonstration(prompt, answer, "instruction", "good", tuple(earlier))
        for source in recipe.sft.instructions
        for *earlier, prompt, answer in conversations(source, check)
    ]


def to_messages(demonstration: Demonstration) -> dict[str, list[dict[str, str]]]:
    """The conversational form that TRL trains on: all that the assistant says in it is imitated."""
    turns = (*demonstration.earlier, demonstration.prompt, demonstration.answer)
    roles = cycle(("user", "assistant"))
    return {"messages": [{"role": role, "content": text} for role, text in zip(roles, turns, strict=False)]}
