"""What the stages learn from, as datasets of the Hub: the authored corpus, a family's rankings, a room's votes."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.checkpoint import Family
from pipeline.errors import InputError
from pipeline.model_card import WRONG_ON_PURPOSE
from pipeline.publish.hub import clear_errors, upload
from pipeline.recipe import REPOSITORY
from pipeline.rooms.labels import Label, preferences

Files = Mapping[str, Path | bytes]

AUTHORED = REPOSITORY / "assets" / "corpus"
# The sets of the authored corpus, each with the files that it is made of, and what it holds.
CORPUS = {
    "cards": ("cards/*.jsonl", "topic cards: facts, passages, and questions with good, weak and bad answers"),
    "countries": ("countries.jsonl", "one line a country, from which questions and statements are composed"),
    "harmful": ("prompts-harmful.jsonl", "requests that should be declined, without answers"),
    "lookalike": ("prompts-lookalike.jsonl", "harmless requests in the words of harmful ones"),
    "everyday": ("prompts-everyday.jsonl", "what people ask, by kind"),
}
ROOM = {
    "votes": ("votes.jsonl", "one ranking a line, as a person gave it"),
    "preferences": ("preferences.jsonl", "every pair of a better and a worse answer, as TRL's trainers take it"),
}


def publish_dataset(files: Files, repo: str, private: bool) -> str:
    """Make these the files of a dataset, in one commit. Returns its address. Raises InputError for a refusal."""
    with clear_errors(repo):
        return upload(repo, "dataset", files, "The data and its card", private)


def corpus_files() -> Files:
    """The topic cards, the countries and the prompt lists, as they stand in this repository."""
    files = [file for pattern, _ in CORPUS.values() for file in AUTHORED.glob(pattern)]
    card = data_card("The corpus that Stagewise's models learn from", CORPUS, ["text-generation"], WRONG_ON_PURPOSE)
    return {str(file.relative_to(AUTHORED)): file for file in files} | {"README.md": card.encode()}


def ranking_files(family: Family) -> Files:
    """The rankings of a family with their card. Raises InputError where there are none, or they are damaged."""
    ranking = family.checkpoint("ranking")
    return {name: ranking.path / name for name in ("rankings.jsonl", "README.md")}


def vote_files(labels: Sequence[Label], seed: int) -> Files:
    """A room's votes and the pairs in them; people are numbered, not named. Raises InputError without votes."""
    if not labels:
        raise InputError("nobody has voted in this room; check --rooms and --room")
    people = dict.fromkeys(label.annotator for label in labels)
    numbers = {name: f"person {number}" for number, name in enumerate(people, 1)}
    unnamed = [label.model_copy(update={"annotator": numbers[label.annotator]}) for label in labels]
    about = f"{len(labels)} rankings by {len(numbers)} people, whose names are left out."
    return {
        "votes.jsonl": json_lines(label.record() for label in unnamed),
        "preferences.jsonl": json_lines(preferences(unnamed, seed)),
        "README.md": data_card("Votes on a small chatbot's answers", ROOM, ["reinforcement-learning"], about).encode(),
    }


def json_lines(records: Iterable[Mapping[str, Any]]) -> bytes:
    # A vote may hold half of a surrogate pair, as a browser can send it: UTF-8 has no place for that.
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode("utf-8", "replace")


def data_card(title: str, sets: Mapping[str, tuple[str, str]], tasks: Sequence[str], about: str) -> str:
    """The README of a dataset: what the Hub's viewer and `load_dataset` need to find each set, and what it holds."""
    configs = [line for name, (file, _) in sets.items() for line in (f"- config_name: {name}", f"  data_files: {file}")]
    return "\n".join(
        [
            "---",
            "language: en",
            "license: apache-2.0",
            f"task_categories: [{', '.join(tasks)}]",
            "tags: [stagewise, education]",
            "configs:",
            *configs,
            "---",
            f"# {title}",
            "",
            about,
            "",
            "| set | holds |",
            "|---|---|",
            *(f"| `{name}` | {holds} |" for name, (_, holds) in sets.items()),
            "",
        ]
    )
