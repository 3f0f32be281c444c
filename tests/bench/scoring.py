"""How many answers the reward model scores in a second, beside transformers' pipeline with the same weights."""

import time
from pathlib import Path
from typing import Any

from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from pipeline.checkpoint import Family, read_json_lines
from pipeline.inference.models import load_reward
from tests.bench.figures import Measured

ANSWERS = 256


def measure(family: Path) -> list[Measured]:
    """Answers per second of both, and how far their scores differ."""
    checkpoint = Family(family).checkpoint("reward")
    reward = load_reward(checkpoint)
    rankings = read_json_lines(family / "ranking" / "rankings.jsonl")
    exchanges = [(line["prompt"], answer["text"]) for line in rankings for answer in line["answers"]][:ANSWERS]
    start = time.perf_counter()
    ours = reward.scores(exchanges)
    seconds = time.perf_counter() - start

    tokenizer = AutoTokenizer.from_pretrained(checkpoint.path)
    model: Any = AutoModelForSequenceClassification.from_pretrained(checkpoint.path, dtype="float32")
    classify: Any = pipeline("text-classification", model, tokenizer=tokenizer, function_to_apply="none")
    texts = [tokenizer.decode(reward.encode(*exchange)) for exchange in exchanges]
    start = time.perf_counter()
    others = [found["score"] - reward.offset for found in classify(texts, add_special_tokens=False)]
    others_seconds = time.perf_counter() - start
    return [
        Measured("scoring", len(exchanges) / seconds, "answers/s"),
        Measured("transformers' pipeline", len(exchanges) / others_seconds, "answers/s"),
        Measured("scoring / pipeline", others_seconds / seconds, at_least=1),
        Measured(
            "largest difference of a score",
            max(abs(one - other) for one, other in zip(ours, others, strict=True)),
            at_most=0.001,
        ),
    ]
