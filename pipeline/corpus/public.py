"""Rows of public data sets as our own records: conversations to imitate, and answers that people have ranked.

A source names the form of its rows. Rows without a column of that form are another set than the recipe says: that
is refused. A row that is damaged, or of no use here, is left out, and the reasons are counted.
"""

import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from tqdm import tqdm

from pipeline.corpus.cards import Corpus
from pipeline.corpus.ranking_prompts import digest, held_out_country_names, names_country, sides
from pipeline.corpus.sources import check_columns, rows
from pipeline.corpus.splits import fraction, same_text
from pipeline.errors import InputError
from pipeline.recipe import ConversationSource, PreferenceSource, Recipe, Source

T = TypeVar("T")
Row = dict[str, Any]
# What was said in turn, the user first: at even places the user's, at odd places the assistant's.
Turns = list[str]
Check = Callable[[Turns], None]

LONGEST_TURN = 60  # words that are imitated: models of this size say more than they know in longer answers
LONGEST_TEXT = 2_000  # characters of what is ranked
COLUMNS = {"instructions": ("instruction", "context", "response"), "messages": ("messages",)}
PAIR = ("chosen", "rejected")
SPEAKER = re.compile(r"\n\n(Human|Assistant): ?")
ROLES = {"Human": "user", "Assistant": "assistant"}


class Unfit(Exception):
    """Why a row is left out, in words that many rows share."""


def conversations(source: ConversationSource, check: Check) -> list[Turns]:
    """The short, plain conversations of a source that pass the check, each from a user's turn to an assistant's."""

    def converted(row: Row) -> Turns:
        turns = from_instruction(row) if source.kind == "instructions" else from_messages(row["messages"])
        if not all(turn.isascii() and "<|" not in turn for turn in turns):
            raise Unfit("not plain")
        if any(len(turn.split()) > LONGEST_TURN for turn in turns):
            raise Unfit("too long")
        check(turns)
        return turns

    return fit_rows(source, COLUMNS[source.kind], converted)


def preferences(corpus: Corpus, recipe: Recipe) -> list[dict[str, Any]]:
    """What people preferred in the sets that the recipe names, in the format of the ranking stage's records."""
    if not recipe.ranking.preferences:
        return []
    check = held_in_only(corpus, recipe)

    def converted(source: PreferenceSource, row: Row) -> dict[str, Any]:
        chosen, rejected = (ended_by_answer(source.kind, row[name]) for name in PAIR)
        check(chosen)
        check(rejected)
        return ranking(source, recipe.ranking.held_out, chosen, rejected)

    return [
        record for source in recipe.ranking.preferences for record in fit_rows(source, PAIR, partial(converted, source))
    ]


def fit_rows(source: Source, columns: tuple[str, ...], convert: Callable[[Row], T]) -> list[T]:
    """What the rows of a source become, each text once; says how many were left out, and why.

    Raises InputError when the source is missing or has no such columns, or when no row is left.
    """
    kept: dict[str, T] = {}
    left_out: Counter[str] = Counter()
    for row in tqdm(rows(source), source.name, source.rows, unit="row", mininterval=2):
        check_columns(source, columns, row)
        try:
            record = convert(row)
            if str(record) in kept:
                raise Unfit("said before")
            kept[str(record)] = record
        except Unfit as reason:
            left_out[str(reason)] += 1
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in left_out.most_common())
    if not kept:
        raise InputError(f"no row of the source {source.name!r} can be used: {reasons or 'it is empty'}")
    print(f"{source.name}: {len(kept):,} of {len(kept) + left_out.total():,} rows used" + (reasons and f"; {reasons}"))
    return list(kept.values())


def held_in_only(corpus: Corpus, recipe: Recipe) -> Check:
    """A check that what was said repeats no prompt, and names no country, that is kept for measuring."""
    texts, countries = sides(corpus, recipe).texts, held_out_country_names(corpus)

    def check(turns: Turns) -> None:
        if any(same_text(turn) in texts for turn in turns) or names_country("\n".join(turns), countries):
            raise Unfit("held out")

    return check


def from_instruction(row: Row) -> Turns:
    """Databricks Dolly's form. A context is mostly a page of an encyclopedia: without it, the answer is a guess."""
    if row["context"]:
        raise Unfit("with a text to read")
    return from_messages(
        [{"role": "user", "content": row["instruction"]}, {"role": "assistant", "content": row["response"]}]
    )


def from_messages(messages: Any) -> Turns:
    """A list of `{"role", "content"}`, as in smol-smoltalk and UltraFeedback."""
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise Unfit("malformed")
    turns = [(message.get("role"), message.get("content")) for message in messages]
    if turns and turns[0][0] == "system":
        raise Unfit("with a system message")
    alternating = [("user", "assistant")[place % 2] for place in range(len(turns))]
    if not turns or len(turns) % 2 or [role for role, _ in turns] != alternating:
        raise Unfit("malformed")
    if not all(isinstance(text, str) and text.strip() for _, text in turns):
        raise Unfit("malformed")
    return [text.strip() for _, text in turns]


def from_transcript(text: Any) -> Turns:
    """HH-RLHF's form: every turn begins with an empty line and `Human: ` or `Assistant: `."""
    before, *parts = SPEAKER.split(text) if isinstance(text, str) else ["?"]
    if before.strip():
        raise Unfit("malformed")
    said = zip(parts[::2], parts[1::2], strict=True)
    return from_messages([{"role": ROLES[speaker], "content": words} for speaker, words in said])


def ended_by_answer(kind: str, said: Any) -> Turns:
    turns = from_transcript(said) if kind == "transcripts" else from_messages(said)
    if any(len(turn) > LONGEST_TEXT for turn in turns):
        raise Unfit("too long")
    return turns


def ranking(source: PreferenceSource, held_out: float, chosen: Turns, rejected: Turns) -> dict[str, Any]:
    """Two answers to the same conversation as one record. Everything that began alike is on one side of the split."""
    *before, better = chosen
    *others, worse = rejected
    if before != others:
        raise Unfit("answers to different prompts")
    if better == worse:
        raise Unfit("the same answer twice")
    *earlier, prompt = before
    record = {
        "id": f"{source.name}#{digest(str(chosen + rejected))}",
        "prompt": prompt,
        "kind": "preference",
        "answers": [
            {"text": text, "stopped": True, "source": name, "rank": rank, "grade": None}
            for rank, (name, text) in enumerate(zip(PAIR, (better, worse), strict=True), 1)
        ],
        "annotator": source.name,
        "split": "test" if fraction("ranking", before[0]) < held_out else "train",
    }
    return record | ({"earlier": earlier} if earlier else {})
