"""Rankings as pairs of a better and a worse answer: what the reward and DPO stages learn from."""

import random
from typing import Any

from pipeline.chat_format import END, encode_prompt, encode_text

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


def encode_answer(tokenizer: Any, answer: Answer) -> list[int]:
    """Token ids of an answer as its model wrote it: one that was cut at the limit has no end token."""
    end = [tokenizer.convert_tokens_to_ids(END)] if answer["stopped"] else []
    return encode_text(tokenizer, answer["text"]) + end


def encode_ranked(tokenizer: Any, prompt: str, answer: Answer) -> list[int]:
    """Token ids of a prompt with a ranked answer; for a finished one the same as `encode_exchange`."""
    return encode_prompt(tokenizer, prompt) + encode_answer(tokenizer, answer)


def fitting(ranking: dict[str, Any], tokenizer: Any, context: int) -> dict[str, Any]:
    """The ranking without the answers that, with the prompt, are longer than the model's context."""
    prompt = ranking["prompt"]
    return ranking | {
        "answers": [answer for answer in ranking["answers"] if len(encode_ranked(tokenizer, prompt, answer)) <= context]
    }
