"""Training data as HTML: what each stage was shown, a few examples a page."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from statistics import fmean
from typing import Any

from pipeline.corpus.conversations import Demonstration
from pipeline.corpus.documents import Document
from pipeline.inference.examples import TrainingData
from ui.columns import icon, signed

LONG = 700  # characters of a document that are shown at once
TICK, CROSS, WAVE = '<path d="M5 12.5l4.5 4.5L19 7.5"/>', '<path d="M6 6l12 12M18 6L6 18"/>', '<path d="M4 12h16"/>'
GRADES = {"good": ("A good answer", TICK), "weak": ("A weak answer", WAVE), "bad": ("A bad answer", CROSS)}
SOURCES = {
    "sft": "SFT wrote it",
    "good": "reference: a good answer",
    "weak": "reference: a weak answer",
    "bad": "reference: a bad answer",
    "chosen": "preferred in a public set",
    "rejected": "not preferred there",
    "other": "a good answer to another question in similar words",
    "cautious": "holds back, as would be right for a question in similar words",
}


@dataclass(frozen=True)
class Shown:
    """How a stage's training data is shown: what it is, where it comes from, and one example of it."""

    about: Callable[[TrainingData], str]
    examples: Callable[[TrainingData], Sequence[Any]]
    one: Callable[[Any], str]
    a_page: int


def page_of(data: TrainingData, stage: str, order: int, page: int) -> tuple[str, int, int]:
    """One page of a stage's examples, the number of that page, and how many there are.

    `order` 0 is that of training; any other number shuffles. A page that does not exist becomes the nearest one.
    Raises InputError when the data is not there.
    """
    shown = SHOWN[stage]
    examples = shown.examples(data)
    places = list(range(len(examples)))
    if order:
        random.Random(order).shuffle(places)
    pages = max(1, -(-len(places) // shown.a_page))
    page = min(max(page, 0), pages - 1)
    chosen = [examples[place] for place in places[page * shown.a_page : (page + 1) * shown.a_page]]
    changed = "" if data.is_of_today(stage) else " The corpus has changed since: these are composed from today's."
    about = f'<p class="about">{shown.about(data)}{changed}</p>'
    return about + "".join(f'<article class="{stage}">{shown.one(one)}</article>' for one in chosen), page, pages


def about_documents(data: TrainingData) -> str:
    outside = sum(source.share for source in data.recipe.corpus.sources)
    more = f" A further {outside:.0%} of its text came from other sources and is not shown." if outside else ""
    return (
        "Base reads documents of many kinds and learns to predict the next token of each. Look for the question "
        f"papers: they are why it answers a question with more questions.{more}"
    )


def about_demonstrations(data: TrainingData) -> str:
    counted = Counter[str](demonstration.grade for demonstration in data.demonstrations)
    total = sum(counted.values())
    shares = ", ".join(f"{counted[grade] / total:.0%} {grade}" for grade in GRADES)
    return (
        f"SFT imitates answers that trainers wrote: {total:,} in the first round, {shares}. The bad ones are there on "
        "purpose. Real trainers are uneven too, and a model that imitates cannot tell which of them were right."
    )


def about_rankings(data: TrainingData) -> str:
    simulated = ", here a simulated one" if {one["annotator"] for one in data.rankings} == {"simulated"} else ""
    return (
        f"Several answers to one prompt, put in order by an annotator{simulated}: {len(data.rankings):,} times. Most "
        "are SFT's own, the references were written for the corpus. The reward model sees two of them at a time, and "
        "learns to give the better one the higher number."
    )


def about_pairs(data: TrainingData) -> str:
    return (
        f"The same {len(data.rankings):,} rankings that trained the reward model. Of each, DPO takes the pairs that "
        "are furthest apart, and makes the better answer likelier than the worse one."
    )


def about_completions(data: TrainingData) -> str:
    return (
        "RLHF is shown no answers. It writes several to each prompt, the reward model scores them, and those above "
        "their mean become likelier. Here is one prompt of each step, with what the model wrote at that time."
    )


def document(item: Document) -> str:
    head, rest = item.text[:LONG], item.text[LONG:]
    more = f"<details><summary>Show all</summary><pre>{escape(rest)}</pre></details>" if rest.strip() else ""
    return f'<p class="source">{escape(item.origin.capitalize())}</p><pre>{escape(head)}</pre>{more}'


def demonstration(item: Demonstration) -> str:
    words, paths = GRADES[item.grade]
    return (
        f'<p class="asked">{escape(item.prompt)}</p><p class="given {item.grade}">{escape(item.answer)}</p>'
        f'<p class="grade {item.grade}">{icon(paths)}{words}</p>'
    )


def ranking(item: dict[str, Any]) -> str:
    rows = "".join(ranked(answer) for answer in sorted(item["answers"], key=lambda answer: answer["rank"]))
    return f'<p class="asked">{escape(item["prompt"])}</p><ol>{rows}</ol>'


def ranked(answer: dict[str, Any]) -> str:
    marks = answer["grade"] or {}
    grades = ", ".join(f"{name} {marks[name]:.1f}" for name in ("helpful", "honest", "harmless") if name in marks)
    notes = " \N{MIDDLE DOT} ".join(filter(None, (SOURCES.get(answer["source"], answer["source"]), grades)))
    return (
        f'<li><b aria-label="rank {answer["rank"]}">{answer["rank"]}</b>'
        f'<div><p>{escape(answer["text"])}</p><p class="notes">{escape(notes)}</p></div></li>'
    )


def completions(item: dict[str, Any]) -> str:
    written = sorted(item["completions"], key=lambda one: one["reward"], reverse=True)
    mean = fmean(one["reward"] for one in written)
    rows = "".join(completion(one, mean) for one in written)
    return (
        f'<p class="source">Step {item["step"]}, mean reward {signed(mean)}</p>'
        f'<p class="asked">{escape(item["prompt"])}</p><ol>{rows}</ol>'
    )


def completion(one: dict[str, Any], mean: float) -> str:
    moved = "becomes likelier" if one["reward"] > mean else "becomes less likely"
    cut = "" if one["stopped"] else " \N{MIDDLE DOT} cut at the limit"
    return (
        f'<li><b aria-label="reward">{signed(one["reward"])}</b><div><p>{escape(one["text"])}</p>'
        f'<p class="notes">{moved}{cut}</p></div></li>'
    )


SHOWN = {
    "base": Shown(about_documents, lambda data: data.documents, document, 2),
    "sft": Shown(about_demonstrations, lambda data: data.demonstrations, demonstration, 6),
    "reward": Shown(about_rankings, lambda data: data.rankings, ranking, 2),
    "rlhf": Shown(about_completions, lambda data: data.completions, completions, 1),
    "dpo": Shown(about_pairs, lambda data: data.rankings, ranking, 2),
}
