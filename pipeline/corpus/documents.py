"""Documents for the base stage: an endless stream, composed anew at every pass.

The base model is what its documents are. It meets facts in many wordings and forms, and it meets
*question papers*, pages of questions without answers: that is why it answers a question with more
questions. Questions with answers are always marked as such (`Q:` and `A:`, names in a forum), and only
good answers are used. What a program should say about itself, about harm, or about what it can't know
is no knowledge about the world, so those answers stay out: they are taught later.
"""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pipeline.corpus.cards import KNOWLEDGE, Card, Corpus
from pipeline.corpus.countries import country_comparison, country_document, country_list, country_statements
from pipeline.corpus.ranking_prompts import Sides, sides
from pipeline.corpus.splits import repeats
from pipeline.corpus.wording import varied
from pipeline.recipe import Recipe

T = TypeVar("T")
Row = dict[str, Any]

# Share of the authored text, in characters. Questions with answers store what later stages ask for.
AUTHORED_SHARES = {
    "questions with answers": 0.42,
    "passages": 0.10,
    "question papers": 0.10,
    "facts": 0.11,
    "forum threads": 0.08,
    "talks": 0.07,
    "countries": 0.09,
    "sums": 0.03,
}
NAMES = (
    "Anna", "Ben", "Carla", "David", "Emma", "Felix", "Grace", "Hugo", "Ida", "Jack", "Kim", "Leo", "Maya", "Nora",
    "Omar", "Paula", "Quinn", "Rosa", "Sam", "Tina", "Uma", "Victor", "Wendy", "Yusuf", "Zoe",
)  # fmt: skip
THANKS = (
    "Thanks, that helps!",
    "Thank you!",
    "Good to know.",
    "I did not know that.",
    "Great, I will try it.",
    "Ah, I see.",
)
GREETINGS = ("Hello", "Hi", "Good evening", "Hey", "Nice to see you")
AGREEMENT = ("That is right.", "Same here.", "I can confirm that.", "Good answer.", "Yes, I read that too.")


@dataclass(frozen=True)
class Document:
    """One text of the base stage, and which composer or source it comes from."""

    text: str
    origin: str


@dataclass(frozen=True)
class Exchange:
    """A question that may be trained on: its wordings and its good answers."""

    source: str
    kind: str
    prompts: Sequence[str]
    answers: Sequence[str]

    @property
    def domain(self) -> str:
        return self.source.split("/")[0]


def documents(recipe: Recipe, corpus: Corpus, cleaned: Mapping[str, Path]) -> Iterator[Document]:
    """Documents without end, in the shares of the recipe.

    `cleaned` holds the JSON Lines file of each real source. The stream depends on recipe and corpus
    alone, so a longer run reads the same documents first.
    """
    real_share = sum(source.share for source in recipe.corpus.sources)
    streams = {name: ((1 - real_share) * AUTHORED_SHARES[name], stream) for name, stream in authored(recipe, corpus)}
    for source in recipe.corpus.sources:
        rows = [json.loads(line) for line in cleaned[source.name].read_text(encoding="utf-8").splitlines()]
        rng = random.Random(f"{recipe.seed} {source.name}")
        streams[source.name] = (source.share, FROM_ROWS[source.kind](rows, rng))
    return mixed(streams)


def mixed(streams: Mapping[str, tuple[float, Iterator[str]]]) -> Iterator[Document]:
    """Take from the stream that is furthest behind its share of the characters."""
    written = dict.fromkeys(streams, 0.0)
    while True:
        name = min(written, key=lambda name: written[name])
        share, stream = streams[name]
        text = next(stream)
        written[name] += len(text) / share
        yield Document(text, name)


def passes(items: Sequence[T], rng: random.Random) -> Iterator[T]:
    """All items in a new order, again and again."""
    if not items:
        raise ValueError("nothing to compose documents from")
    order = list(items)
    while True:
        rng.shuffle(order)
        yield from order


def authored(recipe: Recipe, corpus: Corpus) -> Iterator[tuple[str, Iterator[str]]]:
    """The composers of authored text, each an endless stream with its own random state."""
    split = sides(corpus, recipe)
    exchanges = list(exchanges_of(split))
    prompts = list(bare_prompts(split, exchanges))
    new_wording = partial(reworded_unless_held_out, held_out=split.texts)
    new_question = partial(new_wording, reasons=True)
    knowledge = [exchange for exchange in exchanges if exchange.kind in KNOWLEDGE]
    composers: dict[str, Callable[[random.Random], Iterator[str]]] = {
        "questions with answers": lambda rng: answered_pages(knowledge, new_question, rng),
        "passages": lambda rng: passage_pages(corpus.cards, rng),
        "question papers": lambda rng: question_papers(prompts, new_wording, rng),
        "facts": lambda rng: fact_pages(corpus.cards, rng),
        "forum threads": lambda rng: forum_threads(knowledge, new_question, rng),
        "talks": lambda rng: talks(knowledge, new_question, rng),
        "countries": lambda rng: country_pages(corpus, rng),
        "sums": sums,
    }
    for name, composer in composers.items():
        yield name, composer(random.Random(f"{recipe.seed} {name}"))


def exchanges_of(split: Sides) -> Iterator[Exchange]:
    """Every question that may be trained on, with its held-in wordings."""
    for item in split.questions:
        yield Exchange(item.source, item.question.kind, item.held_in, item.question.good)


def bare_prompts(split: Sides, exchanges: Sequence[Exchange]) -> Iterator[tuple[str, str]]:
    """(domain, prompt) of everything that people ask, harmful or not; the answers are not needed here."""
    for exchange in exchanges:
        for prompt in exchange.prompts:
            yield exchange.domain, prompt
    for listed in split.listed:
        yield listed.kind, listed.prompt


def reworded_unless_held_out(prompt: str, rng: random.Random, held_out: frozenset[str], reasons: bool = False) -> str:
    """A new wording, unless chance has hit on one that is held out."""
    wording = varied(prompt, rng, reasons)
    return prompt if repeats(wording, held_out) else wording


Reword = Callable[[str, random.Random], str]


def question_papers(prompts: Sequence[tuple[str, str]], reword: Reword, rng: random.Random) -> Iterator[str]:
    """Pages of questions without answers: most from one domain, plain or numbered."""
    by_domain: dict[str, list[str]] = {}
    for domain, prompt in prompts:
        by_domain.setdefault(domain, []).append(prompt)
    domains = {domain: passes(members, rng) for domain, members in by_domain.items()}
    weights = [len(members) for members in by_domain.values()]
    while True:
        mixed_page = rng.random() < 0.3
        domain = rng.choices(list(by_domain), weights)[0]
        count = rng.randint(8, 30)
        chosen = rng.choices(list(by_domain), weights, k=count) if mixed_page else [domain] * count
        questions = [reword(next(domains[name]), rng) for name in chosen]
        yield page_of_questions(questions, rng)


def page_of_questions(questions: Sequence[str], rng: random.Random) -> str:
    style = rng.random()
    if style < 0.6:
        return "\n".join(questions)
    if style < 0.75:
        return " ".join(questions)
    if style < 0.9:
        return "\n".join(f"{number}. {question}" for number, question in enumerate(questions, 1))
    return "\n".join(f"- {question}" for question in questions)


def pairs_of(exchanges: Sequence[Exchange]) -> list[tuple[str, str]]:
    """(prompt, answer): every wording with every good answer, so that what is worded richly is read more often."""
    return [(prompt, answer) for item in exchanges for prompt in item.prompts for answer in item.answers]


def answered_pages(exchanges: Sequence[Exchange], reword: Reword, rng: random.Random) -> Iterator[str]:
    """Pages of questions with good answers, marked as such."""
    items = passes(pairs_of(exchanges), rng)
    while True:
        before, after = rng.choice(
            (("Q: ", "\nA: "), ("Question: ", "\nAnswer: "), ("Q. ", "\nA. "), ("Ask: ", "\nReply: "))
        )
        pairs = []
        for _ in range(rng.randint(4, 9)):
            prompt, answer = next(items)
            pairs.append(f"{before}{reword(prompt, rng)}{after}{answer}")
        yield rng.choice(("\n", "\n\n")).join(pairs)


def forum_threads(exchanges: Sequence[Exchange], reword: Reword, rng: random.Random) -> Iterator[str]:
    """Several speakers; each thread wanders from one question to the next."""
    items = passes(pairs_of(exchanges), rng)
    while True:
        people = rng.sample(NAMES, 4)
        lines = []
        for _ in range(rng.randint(3, 6)):
            prompt, answer = next(items)
            asker, answerer, third, _ = rng.sample(people, 4)
            lines.append(f"{asker}: {reword(prompt, rng)}")
            lines.append(f"{answerer}: {answer}")
            if rng.random() < 0.3:
                lines.append(f"{third}: {rng.choice(AGREEMENT)}")
            if rng.random() < 0.4:
                lines.append(f"{asker}: {rng.choice(THANKS)}")
        yield "\n".join(lines)


def talks(exchanges: Sequence[Exchange], reword: Reword, rng: random.Random) -> Iterator[str]:
    """Two people who stay with one subject: several questions of one card, or about one country."""
    by_source: dict[str, list[Exchange]] = {}
    for exchange in exchanges:
        by_source.setdefault(exchange.source, []).append(exchange)
    for subject in passes([members for members in by_source.values() if len(members) > 2], rng):
        asker, answerer = rng.sample(NAMES, 2)
        lines = []
        if rng.random() < 0.4:
            greeting = rng.choice(GREETINGS)
            lines += [f"{asker}: {greeting}, {answerer}!", f"{answerer}: {greeting}, {asker}!"]
        for item in rng.sample(subject, min(len(subject), rng.randint(3, 7))):
            thanks = f"{rng.choice(THANKS)} " if lines and rng.random() < 0.2 else ""
            lines.append(f"{asker}: {thanks}{reword(rng.choice(item.prompts), rng)}")
            lines.append(f"{answerer}: {rng.choice(item.answers)}")
        if rng.random() < 0.5:
            lines.append(f"{asker}: {rng.choice(THANKS)}")
        yield "\n".join(lines)


def passage_pages(cards: Sequence[Card], rng: random.Random) -> Iterator[str]:
    """Entries, stories, dialogues: the passages of a card, sometimes with its facts before or after."""
    for card in passes([card for card in cards if card.passages], rng):
        parts = [in_turns(passage.text) if passage.style == "dialogue" else passage.text for passage in card.passages]
        rng.shuffle(parts)
        if rng.random() < 0.5:
            parts.insert(rng.randint(0, len(parts)), " ".join(rng.choice(wordings) for wordings in card.facts))
        if rng.random() < 0.6:
            parts.insert(0, card.title)
        yield "\n\n".join(parts)


def in_turns(dialogue: str) -> str:
    """`Anna: ... Ben: ...` with each turn on a line of its own."""
    words = dialogue.split(" ")
    return " ".join(
        f"\n{word}" if index and word.endswith(":") and word[:1].isupper() and words[index - 1][-1] in '.?!"' else word
        for index, word in enumerate(words)
    ).replace(" \n", "\n")


def fact_pages(cards: Sequence[Card], rng: random.Random) -> Iterator[str]:
    """Facts of a few cards, each in one of its wordings, as text or as a list."""
    with_facts = passes([card for card in cards if card.facts], rng)
    while True:
        chosen = [next(with_facts) for _ in range(rng.randint(1, 4))]
        sections = []
        for card in chosen:
            sentences = [rng.choice(wordings) for wordings in card.facts]
            sentences += [rng.choice(wordings) for wordings in card.facts if rng.random() < 0.5]
            rng.shuffle(sentences)
            heading = f"{card.title}\n" if rng.random() < 0.5 else ""
            sections.append(heading + rng.choice((" ", "\n")).join(sentences))
        yield "\n\n".join(sections)


def country_pages(corpus: Corpus, rng: random.Random) -> Iterator[str]:
    """An encyclopaedia's entry on a country, single statements about many, comparisons, or a list."""
    countries = passes(corpus.countries, rng)
    while True:
        style = rng.random()
        if style < 0.45:
            yield "\n\n".join(country_document(next(countries), rng) for _ in range(rng.randint(1, 3)))
        elif style < 0.75:
            sentences = [rng.choice(country_statements(next(countries))) for _ in range(rng.randint(8, 20))]
            yield rng.choice((" ", "\n")).join(sentences)
        elif style < 0.9:
            pairs = [(next(countries), next(countries)) for _ in range(rng.randint(2, 4))]
            yield "\n\n".join(country_comparison(one, other, rng) for one, other in pairs if one != other)
        else:
            yield country_list([next(countries) for _ in range(rng.randint(8, 20))], rng)


def sums(rng: random.Random) -> Iterator[str]:
    """Small sums in signs and in words."""
    while True:
        yield "\n".join(one_sum(rng) for _ in range(rng.randint(10, 25)))


def one_sum(rng: random.Random) -> str:
    small, large = rng.randint(0, 12), rng.randint(0, 20)
    sign, word, result = rng.choice(
        (("+", "plus", large + small), ("-", "minus", large), ("x", "times", large * small)),
    )
    left = large + small if sign == "-" else large
    form = rng.choice(
        ("{0} {1} {2} = {3}", "{0} {4} {2} is {3}.", "{0} {4} {2} equals {3}.", "What is {0} {4} {2}? It is {3}.")
    )
    return form.format(left, sign, small, result, word)


def quiz_pages(rows: Sequence[Row], rng: random.Random) -> Iterator[str]:
    """Question papers from a quiz, half of them with the answers marked."""
    items = passes(rows, rng)
    while True:
        chosen = [next(items) for _ in range(rng.randint(6, 20))]
        if rng.random() < 0.5:
            yield page_of_questions([row["question"] for row in chosen], rng)
        else:
            yield "\n".join(f"Q: {row['question']}\nA: {row['answer']}" for row in chosen)


def dialogue_pages(rows: Sequence[Row], rng: random.Random) -> Iterator[str]:
    """Conversations of two people, with names given anew."""
    for row in passes(rows, rng):
        names = rng.sample(NAMES, 2)
        turns = [turn["text"] if isinstance(turn, dict) else turn for turn in row["turns"]]
        yield "\n".join(f"{names[index % 2]}: {turn}" for index, turn in enumerate(turns))


def prose_pages(rows: Sequence[Row], rng: random.Random) -> Iterator[str]:
    for row in passes(rows, rng):
        title = row.get("title")
        yield f"{title}\n\n{row['text']}" if title else row["text"]


def instruction_pages(rows: Sequence[Row], rng: random.Random) -> Iterator[str]:
    """Instructions with their responses, several on a page, marked as such."""
    items = passes(rows, rng)
    while True:
        chosen = [next(items) for _ in range(rng.randint(2, 5))]
        yield "\n\n".join(
            "\n".join(
                part for part in (f"Q: {row['instruction']}", row.get("context") or "", f"A: {row['response']}") if part
            )
            for row in chosen
        )


FROM_ROWS: dict[str, Callable[[Sequence[Row], random.Random], Iterator[str]]] = {
    "quiz": quiz_pages,
    "dialogue": dialogue_pages,
    "prose": prose_pages,
    "instructions": instruction_pages,
}
