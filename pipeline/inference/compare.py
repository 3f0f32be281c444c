"""Several stages side by side on a file of prompts, and the reward model on a file of answers."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipeline.checkpoint import Family, read_json_lines, write_json_lines
from pipeline.errors import InputError
from pipeline.inference.decoding import Decoding
from pipeline.inference.models import checked, readable
from pipeline.inference.stages import answering_models, answering_stages, reward_model
from pipeline.published import PublishedFamily


def compare(family: Family | PublishedFamily, prompts_file: Path, out: Path, decoding: Decoding) -> None:
    """Answer every prompt with every trained stage and score the answers.

    Reads lines `{"id", "prompt"}` and writes, whole or not at all, lines `{"id", "prompt", "answers":
    {"base": {"text", "tokens", "stopped", "reward"}, "sft": ...}}`. A stage that is not there is
    left out; "reward" is null when there is no reward stage. Raises InputError that names the file,
    the line and the field of what cannot be used.
    """
    check_output(out)
    lines = read_lines(prompts_file, {"id": (str, int), "prompt": (str,)})
    prompts = [line["prompt"] for line in lines]
    reward = reward_model(family) if family.has("reward") else None
    records: list[dict[str, Any]] = [{"id": line["id"], "prompt": line["prompt"], "answers": {}} for line in lines]
    models = answering_models(family, lambda line: tqdm.write(line, file=sys.stderr))
    for stage, model in tqdm(models, desc="compare", unit="stage", total=len(answering_stages(family))):
        check_texts(prompts_file, "prompt", prompts, model.check)
        answers = model.answers(prompts, decoding)
        pairs = [(prompt, answer.text) for prompt, answer in zip(prompts, answers, strict=True)]
        finished = [answer.stopped for answer in answers]
        rewards = reward.scores(pairs, finished) if reward else [None] * len(pairs)
        for record, answer, score in zip(records, answers, rewards, strict=True):
            record["answers"][stage] = {
                "text": answer.text,
                "tokens": answer.tokens,
                "stopped": answer.stopped,
                "reward": score,
            }
    write_json_lines(out, records)


def score(family: Family | PublishedFamily, in_file: Path, out: Path) -> None:
    """Write the lines `{"prompt", "response"}` of a file again with `"reward"`, whole or not at all.

    Raises InputError that names the file, the line and the field of what cannot be used.
    """
    check_output(out)
    lines = read_lines(in_file, {"prompt": (str,), "response": (str,)})
    check_texts(in_file, "response", [line["response"] for line in lines], readable)
    reward = reward_model(family)
    scores = reward.scores([(line["prompt"], line["response"]) for line in lines])
    write_json_lines(out, [line | {"reward": score} for line, score in zip(lines, scores, strict=True)])


def check_output(out: Path) -> None:
    """Raise InputError for an output that could not be written: before the work, and not after it."""
    if out.is_dir():
        raise InputError(f"{out} is a folder; name a file to write to")


def read_lines(path: Path, fields: dict[str, tuple[type, ...]]) -> list[dict[str, Any]]:
    """The records of a JSON Lines file, each checked to have its fields and a prompt that can be read."""
    records = read_json_lines(path)
    for number, record in enumerate(records, 1):
        for field, types in fields.items():
            if field not in record:
                raise InputError(f"{path}, line {number}: field {field!r} is missing")
            if not isinstance(record[field], types) or isinstance(record[field], bool):
                wanted = " or ".join({str: "a text", int: "a whole number"}[kind] for kind in types)
                raise InputError(f"{path}, line {number}, field {field!r}: not {wanted}")
    check_texts(path, "prompt", [record["prompt"] for record in records], checked)
    return records


def check_texts(path: Path, field: str, texts: list[str], check: Callable[[str], object]) -> None:
    """Let what a check says against a text name the file, the line and the field."""
    for number, text in enumerate(texts, 1):
        try:
            check(text)
        except InputError as error:
            raise InputError(f"{path}, line {number}, field {field!r}: {error}") from error
