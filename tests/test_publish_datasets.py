"""What the stages learn from, on its way to the Hub, and read back by the datasets library."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from datasets import Dataset, load_dataset

from pipeline.corpus.cards import load_corpus
from pipeline.recipe import REPOSITORY, load_recipe
from pipeline.rooms.labels import VOTES, Labels
from pipeline.stages import ranking
from tests.families import random_family
from tests.hub import TOKEN, Hub, running_hub
from tests.test_labels import NASTY, vote

REPO = "school/data"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        yield hub


def publish(hub: Hub, *words: str | Path, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline", "publish", *map(str, words), "--repo", REPO]
    environment = os.environ | hub.environment | {"HF_TOKEN": token}
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)


def read_back(hub: Hub, folder: Path, name: str) -> Dataset:
    """A set of the uploaded dataset, found by what its card says."""
    for path, content in hub.repositories[REPO].files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return load_dataset(str(folder), name, split="train", cache_dir=str(folder / "cache"))


def test_the_corpus_is_read_back_as_it_is_used_here(hub: Hub, tmp_path: Path) -> None:
    result = publish(hub, "corpus")
    assert result.returncode == 0, result.stderr
    assert hub.repositories[REPO].settings["type"] == "dataset"
    corpus = load_corpus(load_recipe("tiny").corpus)
    cards = read_back(hub, tmp_path, "cards")
    assert sorted(cards["id"]) == sorted(card.id for card in corpus.cards)
    assert sum(len(questions) for questions in cards["qa"]) == sum(len(card.qa) for card in corpus.cards)
    assert len(read_back(hub, tmp_path, "countries")) == len(corpus.countries)
    listed = [prompt for name in ("harmful", "lookalike", "everyday") for prompt in read_back(hub, tmp_path, name)]
    assert {row["prompt"] for row in listed} == {prompt.prompt for prompt in corpus.prompts}


def test_rankings_are_published_with_their_card(hub: Hub, tmp_path: Path) -> None:
    nano = load_recipe("nano")
    few = {"prompts": 8, "answers": 2, "max_new_tokens": 4, "batch_size": 8}
    recipe = nano.model_copy(update={"ranking": nano.ranking.model_copy(update=few)})
    family = random_family(tmp_path / "family", ("base", "sft"))
    rankings = ranking.run(recipe, family).lines("rankings.jsonl")
    result = publish(hub, "rankings", "--family", family.path)
    assert result.returncode == 0, result.stderr
    read = read_back(hub, tmp_path / "read", "default")
    assert [(row["id"], len(row["answers"])) for row in read] == [(row["id"], len(row["answers"])) for row in rankings]


def test_votes_are_published_privately_and_without_names(hub: Hub, tmp_path: Path) -> None:
    names = [*NASTY, "Ada"]
    Labels(tmp_path / "rooms" / VOTES).add([vote(name, prompt=f"{name}?", id=str(at)) for at, name in enumerate(names)])
    Labels(tmp_path / "rooms" / VOTES).add([vote("Eve", room="other")])
    result = publish(hub, "votes", "--rooms", tmp_path / "rooms", "--room", "Class")
    assert result.returncode == 0, result.stderr
    assert hub.repositories[REPO].settings["visibility"] == "private"
    votes = read_back(hub, tmp_path / "read", "votes")
    assert sorted(votes["annotator"]) == [f"person {number}" for number in range(1, len(names) + 1)]
    assert sorted(votes["prompt"]) == sorted(f"{name}?" for name in names)
    pairs = read_back(hub, tmp_path / "read", "preferences")
    assert pairs.column_names == ["prompt", "chosen", "rejected"]
    assert len(pairs) == len(names)


@pytest.mark.parametrize(
    ("words", "token", "said"),
    [
        (("corpus",), "hf_bad", "(401): log in with"),
        (("rankings", "--family", "FAMILY"), TOKEN, "ranking"),
        (("votes", "--rooms", "NOWHERE", "--room", "class"), TOKEN, "there are no votes at"),
        (("votes", "--rooms", "ROOMS", "--room", "empty"), TOKEN, "nobody has voted in this room"),
        (("votes", "--rooms", "ROOMS", "--room", "../x"), TOKEN, "a room's name has"),
    ],
)
def test_what_cannot_be_published_is_one_clear_line(
    hub: Hub, tmp_path: Path, words: tuple[str, ...], token: str, said: str
) -> None:
    Labels(tmp_path / "rooms" / VOTES).add([vote()])
    paths = {"FAMILY": tmp_path / "family", "ROOMS": tmp_path / "rooms", "NOWHERE": tmp_path / "nowhere"}
    random_family(tmp_path / "family", ("base", "sft"))
    result = publish(hub, *(paths.get(word, word) for word in words), token=token)
    assert result.returncode == 2
    [line] = result.stderr.strip().splitlines()
    assert said in line
    assert not hub.repositories
