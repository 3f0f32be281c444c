"""The votes of a room: kept whatever happens, seen by nobody else, and good to train on."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from trl.data_utils import is_conversational

from pipeline.checkpoint import write_json_lines
from pipeline.errors import InputError
from pipeline.recipe import REPOSITORY
from pipeline.rooms.agreement import agreement_with, alpha, disagreements
from pipeline.rooms.labels import PAGE, Label, Labels, Tally, preferences, read_labels, room_name, split_of

NASTY = ["<img src=x onerror=alert(1)>", "'); DROP TABLE votes; --", "<|user|>\x00 {{value}} ${1+1}", "\u202egnp.exe"]


def vote(annotator: str = "Ada", prompt: str = "What is tea?", ranks: tuple[int, ...] = (1, 2), **more: Any) -> Label:
    answers = [{"text": f"Answer {place}", "stopped": True, "rank": rank} for place, rank in enumerate(ranks)]
    fields = {"id": "tea", "prompt": prompt, "answers": answers, "annotator": annotator, "split": "train"}
    return Label.model_validate(fields | {"room": "class", "time": "2026-12-02T10:00:00"} | more)


@pytest.fixture
def labels(tmp_path: Path) -> Labels:
    return Labels(tmp_path / "labels.sqlite")


def test_a_vote_is_kept_changed_and_taken_back(labels: Labels) -> None:
    first, second = vote("Ada"), vote("Ben", ranks=(2, 1))
    labels.add([first, second])
    assert labels.of("class") == [first, second] or labels.of("class") == [second, first]
    assert labels.tally("class") == Tally(2, 2)
    changed = vote("Ada", ranks=(1, 1))
    labels.add([changed])
    assert labels.tally("class") == Tally(2, 2)
    assert changed in labels.of("class")
    assert not labels.withdraw("class", "Ben", changed.vote)
    assert not labels.withdraw("other", "Ada", changed.vote)
    assert labels.withdraw("class", "Ada", changed.vote)
    assert labels.of("class") == [second]


def test_the_room_of_one_class_is_not_seen_in_another(labels: Labels) -> None:
    labels.add([vote(), vote(room="other", annotator="Zoe")])
    assert [label.annotator for label in labels.of("class")] == ["Ada"]
    assert labels.tally("other") == Tally(1, 1)
    assert labels.of("third") == []


def test_two_hundred_voters_at_once_lose_nothing(labels: Labels) -> None:
    voters = [f"voter {number}" for number in range(200)]
    with ThreadPoolExecutor(50) as pool:
        list(pool.map(lambda name: labels.add([vote(name)]), voters))
    assert {label.annotator for label in labels.of("class")} == set(voters)
    with labels.connected() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_killed_process_loses_no_vote_that_it_acknowledged(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom tests.test_labels import Labels, vote\n"
        "labels = Labels(Path(sys.argv[1]))\n"
        "for number in range(10_000):\n    labels.add([vote(f'voter {number}')])\n    print(number, flush=True)\n"
    )
    path = tmp_path / "labels.sqlite"
    with subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=REPOSITORY, stdout=subprocess.PIPE) as voting:
        assert voting.stdout
        acknowledged = [voting.stdout.readline() for _ in range(25)]
        os.kill(voting.pid, signal.SIGKILL)
        acknowledged += voting.stdout.readlines()
    kept = {label.annotator for label in Labels(path).of("class")}
    assert {f"voter {int(line)}" for line in acknowledged} <= kept


def test_strangers_cannot_fill_the_disk(labels: Labels, monkeypatch: pytest.MonkeyPatch) -> None:
    labels.add([vote()])
    monkeypatch.setattr("pipeline.rooms.labels.LARGEST", 20 * PAGE)
    voters = ([vote(f"voter {number}")] for number in range(1000))
    with pytest.raises(InputError, match="no room for more votes"):
        list(map(labels.add, voters))
    kept = labels.of("class")
    assert 20 < len(kept) < 1000
    assert labels.path.stat().st_size <= 20 * PAGE
    for label in kept[:10]:  # nobody is kept from taking a vote back, and that makes room
        assert labels.withdraw("class", label.annotator, label.vote)
    labels.add([vote("Zoe")])


@pytest.mark.parametrize("text", NASTY)
def test_markup_queries_and_control_tokens_are_only_text(labels: Labels, text: str, tmp_path: Path) -> None:
    labels.add([vote(text[:40], prompt=text)])
    [kept] = labels.of("class")
    assert (kept.annotator, kept.prompt) == (text[:40], text)
    write_json_lines(tmp_path / "export.jsonl", [kept.record()])
    assert read_labels(tmp_path / "export.jsonl") == [kept]
    with pytest.raises(InputError, match="a room's name has"):
        room_name(text)


def test_an_export_comes_back_as_it_was_and_only_once(labels: Labels, tmp_path: Path) -> None:
    kept = [
        vote("Ada"),
        vote("Ben", ranks=(2, 1), all_bad=True, criteria=[{"better": 1, "worse": 0, "criterion": "honest"}]),
    ]
    labels.add(kept)
    exported = tmp_path / "export.jsonl"
    write_json_lines(exported, [label.record() for label in labels.of("class")])
    other = Labels(tmp_path / "other.sqlite")
    for _ in range(2):
        other.add(read_labels(exported))
    assert other.of("class") == labels.of("class")


def test_the_rankings_of_a_family_can_be_read(tmp_path: Path) -> None:
    answers = [{"text": text, "stopped": True, "source": "good", "rank": 1, "grade": {"overall": 0.5}} for text in "ab"]
    line = {"id": "1", "prompt": "?", "kind": "fact", "answers": answers, "annotator": "simulated", "split": "test"}
    write_json_lines(tmp_path / "rankings.jsonl", [line])
    [label] = read_labels(tmp_path / "rankings.jsonl")
    assert {name: value for name, value in label.record().items() if name in line} == {
        **line,
        "answers": [answer | {"seed": None} for answer in answers],
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"answers": []}, "key 'answers'"),
        ({"annotator": ""}, "key 'annotator'"),
        ({"prompt": 7}, "key 'prompt'"),
        ({"split": "both"}, "key 'split'"),
        ({"mood": "good"}, "unknown key 'mood'"),
        ({"criteria": [{"better": 0, "worse": 5, "criterion": "honest"}]}, "'criteria' names an answer"),
    ],
)
def test_what_is_no_vote_is_named_by_line_and_field(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    write_json_lines(tmp_path / "votes.jsonl", [vote().record(), vote().record() | change])
    with pytest.raises(InputError, match=r"line 2: .*" + said):
        read_labels(tmp_path / "votes.jsonl")


@pytest.mark.parametrize(("text", "name"), [("class-7", "class-7"), ("  Class 7b ", "class-7b")])
def test_a_room_has_a_plain_name(text: str, name: str) -> None:
    assert room_name(text) == name


@pytest.mark.parametrize("text", ["", "..", "a/b", "-a", "a" * 41, "é"])
def test_a_room_cannot_be_a_path(text: str) -> None:
    with pytest.raises(InputError, match="a room's name has"):
        room_name(text)


def test_all_votes_on_one_prompt_stand_on_one_side() -> None:
    sides = [split_of(f"Question {number}?") for number in range(500)]
    assert 60 < sides.count("test") < 140
    assert split_of("Question 1?") == split_of("question 1")


def test_pairs_are_what_trl_trains_on() -> None:
    found = preferences([vote(ranks=(2, 1, 1))], seed=0)
    assert len(found) == 2
    assert all(is_conversational(pair) for pair in found)
    assert {pair["rejected"][0]["content"] for pair in found} == {"Answer 0"}
    json.dumps(found)


def test_who_agrees_and_who_does_not() -> None:
    agreeing = [vote(name, prompt, (1, 2, 3)) for name in ("Ada", "Ben") for prompt in ("a?", "b?")]
    assert alpha(agreeing) == 1.0
    assert disagreements(agreeing) == []
    opposed = vote("Eve", "a?", (3, 2, 1))
    assert (alpha([*agreeing, opposed]) or 1) < 0.7
    contested = disagreements([*agreeing, opposed])
    assert len(contested) == 3
    assert {(each.for_one, each.for_other, each.ties) for each in contested} == {(2, 1, 0)}


def test_one_person_alone_agrees_with_nobody() -> None:
    assert alpha([]) is None
    assert alpha([vote("Ada", "a?"), vote("Ben", "b?")]) is None
    assert alpha([vote("Ada", ranks=(1, 1)), vote("Ben", ranks=(1, 1))]) is None


def test_rewards_are_compared_with_votes() -> None:
    rewards = {("What is tea?", f"Answer {place}"): float(place) for place in range(3)}
    assert agreement_with(rewards, [vote(ranks=(3, 2, 1))]) == (3, 3)
    assert agreement_with(rewards, [vote(ranks=(1, 1, 2))]) == (0, 2)
