"""Rankings as pairs of a better and a worse answer: what the reward and DPO stages learn from."""

import random
import statistics
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Any

from pipeline.chat_format import encode_exchange

Answer = dict[str, Any]


def pairs(ranking: dict[str, Any], seed: int) -> list[tuple[Answer, Answer]]:
    """(better, worse) for every two answers of a ranking that differ in rank and in text, in random order."""
    answers = ranking["answers"]
    found = [
        (better, worse)
        for better in answers
        for worse in answers
        if better["rank"] < worse["rank"] and better["text"] != worse["text"]
    ]
    random.Random(f"{seed} {ranking['id']}").shuffle(found)
    return found


def encode_ranked(tokenizer: Any, ranking: dict[str, Any], answer: Answer) -> list[int]:
    """Token ids of a ranking's prompt, and what was said before, with an answer as it was written: finished or cut."""
    return encode_exchange(tokenizer, ranking["prompt"], answer["text"], answer["stopped"], ranking.get("earlier", ()))


def fitting(ranking: dict[str, Any], tokenizer: Any, context: int) -> dict[str, Any]:
    """The ranking without the answers that, with the prompt, are longer than the model's context."""
    answers = [answer for answer in ranking["answers"] if len(encode_ranked(tokenizer, ranking, answer)) <= context]
    return ranking | {"answers": answers}


def centred(values: Sequence[float], groups: Sequence[Hashable]) -> list[float]:
    """Each value less the mean of its group: what answers differ in besides what sets their groups apart."""
    members: dict[Hashable, list[float]] = defaultdict(list)
    for value, group in zip(values, groups, strict=True):
        members[group].append(value)
    means = {group: statistics.fmean(inside) for group, inside in members.items()}
    return [value - means[group] for value, group in zip(values, groups, strict=True)]
