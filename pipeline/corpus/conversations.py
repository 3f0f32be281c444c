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
from pipeline.corpus.public import conversations, held_in_only
from pipeline.corpus.ranking_prompts import Asked, sides, taught
from pipeline.corpus.splits import fraction, repeats
from pipeline.corpus.wording import varied
from pipeline.recipe import DemonstrationShares, Recipe, Shares

Grade = Literal["good", "weak", "bad"]

# Of the demonstrations of a question that trainers answer in opposite ways, so many are not by its usual trainer.
ANOTHER_TRAINER = 1 / 3

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

    A question's wordings rotate from epoch to epoch, and each is typed anew. One trainer answers them all in the same
    words; where right and wrong are what RLHF has to tell apart, another one does now and then.
    """
    split = sides(corpus, recipe)
    return [
        Demonstration(wording, answer, item.question.kind, grade)
        for item in taught(split, recipe)
        for prompt in wordings(item, recipe.sft.prompts_per_question, epoch)
        for occasion in [f"{epoch} {prompt}"]
        for grade, answer in [graded_answer(item, occasion, recipe.sft.demonstrations)]
        if answer
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


def graded_answer(item: Asked, occasion: str, shares: DemonstrationShares) -> tuple[Grade, str | None]:
    """What the trainer who is asked on this occasion answers, and its grade; None where it could hurt somebody.

    The usual trainer gives the first of the card's answers. Who answers is fixed by a hash of the question, or of the
    occasion; with other `trainers`, other questions are answered badly. Were a harmful question always answered
    alike, SFT would never try the other answer, and RLHF could not find it.
    """
    question = item.question
    wanted = shares_of(question.kind, shares)
    opposed = wanted is not shares.usual
    other = opposed and fraction("another trainer", item.id, occasion) < ANOTHER_TRAINER
    trainer = [str(shares.trainers), item.id, *([occasion] if other else [])]
    place = fraction("demonstration", *trainer)
    grade: Grade = "bad" if place < wanted.bad else "weak" if place < wanted.bad + wanted.weak else "good"
    if question.kind == "support" or (grade == "weak" and not question.weak):
        grade = "good"
    answers = demonstrable(item) if grade == "bad" else question.weak if grade == "weak" else question.good
    if not answers:
        return grade, None
    return grade, answers[int(fraction("answer", *trainer) * len(answers))] if other else answers[0]


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
