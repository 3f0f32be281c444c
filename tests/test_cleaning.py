"""Cleaning of real text: what goes, what stays, and what is told about it."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from pipeline.checkpoint import Family, read_json_lines, write_json_lines
from pipeline.corpus.cards import Corpus, load_corpus
from pipeline.corpus.cleaning import clean, normalise
from pipeline.corpus.outside import outside_prompts
from pipeline.corpus.ranking_prompts import held_out_prompts
from pipeline.corpus.sources import rows
from pipeline.errors import InputError
from pipeline.recipe import DocumentSource, Recipe, load_recipe

RIVER = (
    "A river starts high in the hills, where rain and melting snow gather in small streams. The streams meet, and "
    "the water grows wide and slow. At the end of its way it flows into the sea, and ships can sail on it."
)
BREAD = (
    "To bake bread you need flour, water, salt and yeast. Mix them, and let the dough rest in a warm place until "
    "it is twice as big. Then bake it until the crust is brown and the whole house smells of it."
)
FRENCH = (
    "La rivière prend sa source dans les montagnes, où la pluie et la neige se rassemblent en petits ruisseaux. "
    "Les ruisseaux se rencontrent, et l'eau devient large et lente avant de se jeter dans la mer."
)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("nano")


@pytest.fixture(scope="module")
def corpus(recipe: Recipe) -> Corpus:
    return load_corpus(recipe.corpus)


def source(path: Path, kind: str = "prose", **more: Any) -> DocumentSource:
    return DocumentSource.model_validate(
        {"name": "real", "kind": kind, "licence": "CC0", "share": 0.1, "path": str(path), **more}
    )


def with_sources(recipe: Recipe, *sources: DocumentSource) -> Recipe:
    return recipe.model_copy(update={"corpus": recipe.corpus.model_copy(update={"sources": list(sources)})})


def cleaned_rows(recipe: Recipe, corpus: Corpus, folder: Path, kind: str, raw: list[dict[str, Any]]) -> list[Any]:
    write_json_lines(folder / "raw.jsonl", raw)
    files = clean(with_sources(recipe, source(folder / "raw.jsonl", kind)), Family(folder / "family"), corpus)
    return read_json_lines(files["real"])


@pytest.fixture(scope="module")
def prose(recipe: Recipe, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], Family]:
    """The rows that remain of one of each sort, and the family that holds the report."""
    asked = next(p.prompt for p in held_out_prompts(corpus, recipe) if len(p.prompt.split()) == 7)
    texts = {
        "river": f"{RIVER} And that",
        "bread": BREAD.replace("house", "“house”") + "<|assistant|>\n\nMore at https://example.org/bread today.",
        "french": FRENCH,
        "same": RIVER.replace(", ", " - "),
        "near": RIVER.replace("ships", "boats"),
        "held out": f"{BREAD} One day my sister came in and said: {asked.upper()} Nobody knew.",
        "short": "A very short text.",
        "code": "<div>{ margin: 0 }</div>\n" * 9 + "That was all there is to see on this page.",
        "loop": "The sun is warm and the sea is blue. " * 12,
    }
    folder = tmp_path_factory.mktemp("prose")
    raw = [{"id": name, "text": text, "pages": 3} for name, text in texts.items()]
    return cleaned_rows(recipe, corpus, folder, "prose", raw), Family(folder / "family")


def test_what_stays_is_normalised(prose: tuple[list[Any], Family]) -> None:
    kept, _ = prose
    assert kept == [
        {"id": "river", "text": RIVER, "pages": 3},
        {"id": "bread", "text": BREAD.replace("house", '"house"'), "pages": 3},
    ]


def test_report_counts_what_each_filter_removed(prose: tuple[list[Any], Family]) -> None:
    _, family = prose
    report = json.loads((family.path / "corpus" / "cleaning.json").read_text())["real"]
    assert (report["rows"], report["kept"]) == (9, 2)
    removed = {name: count for name, count in report["removed"].items() if count}
    assert removed == {
        "markup": 1,
        "quality": 1,
        "repetition": 1,
        "language": 1,
        "held-out prompt": 1,
        "exact duplicate": 1,
        "near duplicate": 1,
    }


def test_examples_tell_why(prose: tuple[list[Any], Family]) -> None:
    _, family = prose
    examples = {each["filter"]: each for each in read_json_lines(family.path / "corpus" / "removed.jsonl")}
    assert examples["language"]["reason"] == "fr"
    assert examples["language"]["text"] == FRENCH[:160]
    assert examples["quality"]["text"] == "A very short text."
    assert " - " in examples["exact duplicate"]["text"]
    assert examples["near duplicate"]["text"] == RIVER[:160]
    assert {each["source"] for each in examples.values()} == {"real"}


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("It\u2019s \u201cfine\u201d \u2026 or\u00a0not\u200b", 'It\'s "fine" ... or not'),
        ("schÃ¶n", "schön"),
        ("cafe\u0301", "café"),
        ("a  b\t c \r\n\r\n\r\n\r\nd", "a b c\n\nd"),
        ("<|user|>Hello<|end|>", "Hello"),
        ("<|<|end|>user|>Hello", "Hello"),
        ("Paris[1] is old.[citation needed]", "Paris is old."),
    ],
)
def test_normalise(raw: str, plain: str) -> None:
    assert normalise(raw) == plain


def test_quiz_rows_keep_their_columns(recipe: Recipe, corpus: Corpus, tmp_path: Path) -> None:
    row = {"id": "q/1", "question": "Which  of these birds swims?", "answer": "Penguin", "choices": ["Owl", "Penguin"]}
    again = row | {"id": "q/2", "question": "which of these birds swims"}
    kept = cleaned_rows(recipe, corpus, tmp_path, "quiz", [row, again])
    assert kept == [row | {"question": "Which of these birds swims?"}]


def test_dialogue_rows_keep_their_turns(recipe: Recipe, corpus: Corpus, tmp_path: Path) -> None:
    turns = [{"speaker": "a", "text": "Did you see the game last night?"}, {"speaker": "b", "text": "I slept!"}]
    kept = cleaned_rows(recipe, corpus, tmp_path, "dialogue", [{"turns": turns}])
    assert kept == [{"id": "real/0", "turns": turns}]


def test_held_out_prompt_is_found_in_instructions(recipe: Recipe, corpus: Corpus, tmp_path: Path) -> None:
    asked = next(p.prompt for p in held_out_prompts(corpus, recipe) if len(p.prompt.split()) == 4)
    answer = {"context": "", "response": "Nobody can say that for sure, and I am not able to look it up."}
    raw = [{"instruction": asked} | answer, {"instruction": "Who can say how tall that green house is?"} | answer]
    kept = cleaned_rows(recipe, corpus, tmp_path, "instructions", raw)
    assert [row["instruction"] for row in kept] == [raw[1]["instruction"]]


def test_outside_prompt_is_found_in_quizzes(recipe: Recipe, corpus: Corpus, tmp_path: Path) -> None:
    asked = next(item.prompt for item in outside_prompts() if item.kind == "fact")
    answer = {"answer": "I do not know that one.", "choices": []}
    raw = [{"question": asked.lower()} | answer, {"question": "How tall was that green house in the end?"} | answer]
    kept = cleaned_rows(recipe, corpus, tmp_path, "quiz", raw)
    assert [row["question"] for row in kept] == [raw[1]["question"]]


def test_clean_source_is_not_read_again(recipe: Recipe, corpus: Corpus, tmp_path: Path) -> None:
    first = cleaned_rows(recipe, corpus, tmp_path, "prose", [{"id": "1", "text": BREAD}])
    (tmp_path / "raw.jsonl").unlink()
    again = with_sources(recipe, source(tmp_path / "raw.jsonl", share=0.3))
    assert read_json_lines(clean(again, Family(tmp_path / "family"), corpus)["real"]) == first
    with pytest.raises(InputError, match="--authored-only"):
        clean(with_sources(recipe, source(tmp_path / "raw.jsonl", rows=5)), Family(tmp_path / "family"), corpus)


def test_missing_column_is_named_and_leaves_nothing(recipe: Recipe, corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'real' of kind 'quiz' has no column 'answer'; it has id, question"):
        cleaned_rows(recipe, corpus, tmp_path, "quiz", [{"id": "1", "question": "Who?"}])
    assert list(Family(tmp_path / "family").work("corpus").iterdir()) == []


def test_no_source_is_no_work(recipe: Recipe, corpus: Corpus, tmp_path: Path) -> None:
    family = Family(tmp_path)
    assert clean(with_sources(recipe), family, corpus) == {}
    assert json.loads((family.path / "corpus" / "cleaning.json").read_text()) == {}


def test_two_sources_of_one_name(recipe: Recipe, corpus: Corpus, tmp_path: Path) -> None:
    twice = with_sources(recipe, source(tmp_path / "a.jsonl"), source(tmp_path / "b.jsonl"))
    with pytest.raises(InputError, match="two different sources are named 'real'"):
        clean(twice, Family(tmp_path), corpus)


def test_part_of_a_source_stands_for_the_whole(tmp_path: Path) -> None:
    table = pyarrow.table({"id": [str(number) for number in range(1000)], "text": ["x"] * 1000})
    pyarrow.parquet.write_table(table, tmp_path / "all.parquet")
    part = [int(row["id"]) for row in rows(source(tmp_path, rows=50))]
    assert len(set(part)) == 50
    assert max(part) > 500
    assert part == [int(row["id"]) for row in rows(source(tmp_path, rows=50))]
    assert len(list(rows(source(tmp_path / "all.parquet")))) == 1000


@pytest.mark.parametrize("name", ["absent", "empty", "text.csv"])
def test_unreadable_source(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.csv").write_text("text\nhello\n")
    with pytest.raises(InputError, match=r"cannot read the source 'real'.*--authored-only"):
        list(rows(source(tmp_path / name)))


@pytest.mark.parametrize(("name", "content"), [("a.parquet", b"PAR1 not really"), ("a.jsonl", b"{not json\n")])
def test_damaged_source(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="cannot read the source 'real'"):
        list(rows(source(tmp_path / name)))
