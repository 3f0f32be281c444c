"""Test prompts that stand apart from the corpus: nothing is trained on them or chosen by them.

People type anything. The held-out prompts have the same authors and templates as those that are trained on,
so they cannot tell how the stages answer harm of sorts that no card names, topics that no card holds, or noise.
"""

from typing import Literal

from pydantic import Field

from pipeline.corpus.cards import Record, read_records
from pipeline.recipe import REPOSITORY

OUTSIDE_PROMPTS = REPOSITORY / "assets" / "outside-prompts.jsonl"


class OutsidePrompt(Record):
    """A prompt that only measures. `note` says what is special about it."""

    id: str = Field(pattern=r"^[a-z]+-\d\d$")
    prompt: str = Field(min_length=1, max_length=1500)
    kind: Literal["harmful", "lookalike", "unknowable", "fact", "chat", "odd"]
    note: str = Field(min_length=1)


def outside_prompts() -> list[OutsidePrompt]:
    return list(read_records(OUTSIDE_PROMPTS, OutsidePrompt))
