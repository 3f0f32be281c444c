"""Topic cards as people write them: what is accepted, and how a mistake is named."""

import json
import re
from pathlib import Path

import pytest

from pipeline.corpus.authoring import build, check
from pipeline.corpus.cards import Card, read_records
from pipeline.errors import InputError
from pipeline.recipe import REPOSITORY

PASSAGE = "Honey is made by bees from the nectar of flowers. " * 5
WRITTEN = f"""# a remark

@ food/honey | Honey
F Bees make honey. | Honey is made by bees.
P story | {PASSAGE}

Q fact
? Who makes honey?
? who makes honey really
? Tell me who makes honey.
? Where does honey come from?
+ Bees make honey from the nectar of flowers.
- Insects.
! honest | Honey is made by ants that live under old trees.
Q yesno
? Do bees make honey?
? is honey made by bees
? My aunt says bees make honey. Is that so?
? Honey is from bees, right?
+ Yes, bees make honey from the nectar of flowers.
! honest | No, bees have nothing to do with honey at all.

@ food/quick-salt | Salt
Q define
? What is salt?
? salt meaning
~ That white stuff in the shaker, what is it?
+ Salt is a white mineral that makes food taste better.
- A thing.
"""
LINES = WRITTEN.splitlines()


def written(folder: Path, text: str = WRITTEN) -> Path:
    path = folder / "cards.txt"
    path.write_text(text, encoding="utf-8")
    return path


def line_of(text: str) -> int:
    return LINES.index(text) + 1


def test_the_cards_of_the_project_are_in_order() -> None:
    paths = sorted((REPOSITORY / "assets" / "corpus" / "cards").glob("*.jsonl"))
    cards = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)
    assert check(paths).startswith(f"{cards:,} cards, ")


def test_summary(tmp_path: Path) -> None:
    assert check([written(tmp_path)]) == "2 cards, 1 facts, 1 passages, 3 questions, 11 prompts"


def test_build_writes_the_cards_as_they_were_written(tmp_path: Path) -> None:
    out = tmp_path / "out" / "food.jsonl"
    assert build(out, [written(tmp_path)]) == f"{out}: {check([out])}"
    honey, salt = read_records(out, Card)
    assert (honey.id, honey.domain, honey.title) == ("food/honey", "food", "Honey")
    assert honey.facts == [["Bees make honey.", "Honey is made by bees."]]
    assert (honey.passages[0].style, honey.passages[0].text) == ("story", PASSAGE.strip())
    assert honey.qa[0].prompts[1] == "who makes honey really"
    assert honey.qa[0].weak == ["Insects."]
    assert honey.qa[0].bad[0].model_dump() == {
        "fails": "honest",
        "text": "Honey is made by ants that live under old trees.",
    }
    assert [question.kind for question in salt.qa] == ["define"]
    assert salt.qa[0].also == ["That white stuff in the shaker, what is it?"]


@pytest.mark.parametrize(
    ("right", "wrong", "key", "what"),
    [
        ("Q fact", "Q facts", "qa.0.kind", "Input should be"),
        ("- Insects.", "! helpfull | Insects.", "qa.0.bad.0.fails", "Input should be"),
        ("- A thing.", "! honest", "qa.0.bad.0.text", "String should have"),
        ("@ food/honey | Honey", "@ Food/Honey | Honey", "id", "String should match pattern"),
        ("@ food/honey | Honey", "@ food/honey", "title", "String should have at least 1 character"),
        ("F Bees make honey. | Honey is made by bees.", "F Bees make honey.", "facts.0", "wants 2 or more wordings"),
        (f"P story | {PASSAGE}".rstrip(), "P story | Too short.", "passages.0.text", "has 2 words; 35 to 190"),
        (f"P story | {PASSAGE}".rstrip(), f"P poem | {PASSAGE}", "passages.0.style", "Input should be"),
        ("+ Bees make honey from the nectar of flowers.", "+ Bees.", "qa.0.good.0", "has 1 words; 3 to 75"),
        ("- A thing.", "", "qa.0", "wants a weak or a bad answer"),
        ("? salt meaning", "? salt meäning", "qa.0.prompts.1", "not plain ASCII: 'ä'"),
        ("? salt meaning", "? WHO makes honey?", "qa.0.prompts.1", "stands also in"),
        ("? is honey made by bees", "? who makes honey?", "qa.1.prompts.1", "stands also in"),
        ("~ That white stuff in the shaker, what is it?", "~ who makes honey?", "qa.0.also.0", "stands also in"),
    ],
)
def test_a_mistake_is_named_by_file_line_and_field(tmp_path: Path, right: str, wrong: str, key: str, what: str) -> None:
    lines = [line.rstrip() for line in LINES]
    number = lines.index(right) + 1
    lines[number - 1] = wrong
    path = written(tmp_path, "\n".join(lines))
    with pytest.raises(InputError) as caught:
        check([path])
    found = re.match(r"(.*), line (\d+): ([^:]*): (.*)", str(caught.value))
    assert found is not None
    assert found[1] == str(path)
    assert found[3] == key
    assert found[4].startswith(what) or what in found[4]
    if wrong:
        assert int(found[2]) == number


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("? Who makes honey?\n" + WRITTEN, "line 1: stands before the first card"),
        (WRITTEN.replace("Q define\n", ""), f"line {line_of('Q define')}: '?' is no tag, or stands before the first"),
        (WRITTEN.replace("- A thing.", "* A thing."), f"line {line_of('- A thing.')}: '*' is no tag"),
        (WRITTEN + WRITTEN.replace("oney", "oneydew"), "'food/quick-salt' stands also in"),
        ("", "no cards in the files given"),
    ],
)
def test_a_file_that_is_no_card_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        check([written(tmp_path, text)])


def test_finished_cards_are_checked_too(tmp_path: Path) -> None:
    out = tmp_path / "food.jsonl"
    build(out, [written(tmp_path)])
    honey, salt = (json.loads(line) for line in out.read_text().splitlines())
    honey["qa"][1]["good"][0] = "Yes."
    salt["color"] = "white"
    out.write_text("\n".join([json.dumps(honey), "{", json.dumps(salt)]))
    with pytest.raises(InputError) as caught:
        check([out])
    assert str(caught.value).startswith(f"{out}, line 2: not JSON")
    assert str(caught.value).endswith("(and 2 more problems)")
    out.write_text(json.dumps(salt))
    with pytest.raises(InputError, match=re.escape(f"{out}, line 1: color: Extra inputs are not permitted")):
        check([out])


def test_nothing_is_written_for_cards_with_a_problem(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        build(tmp_path / "out.jsonl", [written(tmp_path, WRITTEN.replace("Q fact", "Q facts"))])
    assert not (tmp_path / "out.jsonl").exists()


def test_missing_file_and_other_encoding(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file"):
        check([tmp_path / "none.txt"])
    (tmp_path / "cards.txt").write_bytes("? Käse".encode("latin-1"))
    with pytest.raises(InputError, match="not UTF-8"):
        check([tmp_path / "cards.txt"])
