"""Rows as they stand in public sets, and what they become here."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.chat_format import encode_exchange
from pipeline.checkpoint import write_json_lines
from pipeline.corpus.cards import Corpus, load_corpus
from pipeline.corpus.conversations import Demonstration, instructions, to_messages
from pipeline.corpus.preferences import encode_ranked
from pipeline.corpus.public import preferences
from pipeline.corpus.ranking_prompts import held_out_prompts
from pipeline.errors import InputError
from pipeline.recipe import ConversationSource, PreferenceSource, Recipe, load_recipe
from pipeline.rooms.labels import Label
from pipeline.stages import dpo, ranking, reward, sft
from tests.families import random_family
from tests.rankings import small

GREEN = "What goes well with green tea?"
PLAIN = "Rice cakes do, or a few plain biscuits."


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("nano")


@pytest.fixture(scope="module")
def corpus(recipe: Recipe) -> Corpus:
    return load_corpus(recipe.corpus)


def said(*turns: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[place % 2], "content": turn} for place, turn in enumerate(turns)]


def spoken(*turns: str) -> str:
    return "".join(f"\n\n{('Human', 'Assistant')[place % 2]}: {turn}" for place, turn in enumerate(turns))


def with_rows(recipe: Recipe, folder: Path, kind: str, *rows: dict[str, Any]) -> Recipe:
    """The recipe with a source of these rows, for SFT or for the rankings."""
    write_json_lines(folder / "rows.jsonl", list(rows))
    place: dict[str, Any] = {"kind": kind, "name": "public", "licence": "MIT", "path": str(folder / "rows.jsonl")}
    if "chosen" in rows[0]:
        return small(recipe, "ranking", preferences=[PreferenceSource(**place)])
    return small(recipe, "sft", instructions=[ConversationSource(**place)])


def test_dolly(recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"instruction": f" {GREEN}\n", "context": "", "response": PLAIN, "category": "open_qa"}
    named = with_rows(
        recipe,
        tmp_path,
        "instructions",
        row,
        row,
        row | {"context": "Green tea is a drink.", "category": "closed_qa"},
        row | {"response": None},
        row | {"response": "  "},
        row | {"response": "Caf\u00e9s know."},
        row | {"response": "Hi <|im_end|>"},
        row | {"response": "word " * 61},
    )
    assert instructions(named) == [Demonstration(GREEN, PLAIN, "instruction", "good")]
    told = capsys.readouterr().out
    assert told == (
        "public: 1 of 8 rows used; 2 malformed, 2 not plain, 1 said before, 1 with a text to read, 1 too long\n"
    )


def test_smol_smoltalk_with_all_its_turns(recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    talk = said("Hi there", "Hello! How can I help you today?", GREEN, PLAIN)
    named = with_rows(
        recipe,
        tmp_path,
        "messages",
        {"messages": talk, "source": "everyday-conversations"},
        {"messages": [{"role": "system", "content": "You are SmolLM."}, *talk], "source": "smol-rewrite"},
        {"messages": talk[:3], "source": "everyday-conversations"},
        {"messages": [talk[0], talk[0], talk[1], talk[1]], "source": "everyday-conversations"},
        {"messages": [], "source": "everyday-conversations"},
    )
    [found] = instructions(named)
    assert (found.prompt, found.answer) == (GREEN, PLAIN)
    assert found.earlier == ("Hi there", "Hello! How can I help you today?")
    assert to_messages(found)["messages"] == talk
    assert capsys.readouterr().out == "public: 1 of 5 rows used; 3 malformed, 1 with a system message\n"


def test_every_answer_of_a_conversation_is_trained(recipe: Recipe, tmp_path: Path, tiny_tokenizer: Any) -> None:
    talk = said("Hi there", "Hello!", GREEN, PLAIN)
    [found] = instructions(with_rows(recipe, tmp_path, "messages", {"messages": talk}))
    rendered = tiny_tokenizer.apply_chat_template(
        to_messages(found)["messages"], return_dict=True, return_assistant_tokens_mask=True
    )
    tokens, mask = rendered["input_ids"], rendered["assistant_masks"]
    assert tokens == encode_exchange(tiny_tokenizer, found.prompt, found.answer, earlier=found.earlier)
    trained = tiny_tokenizer.decode([token for token, counts in zip(tokens, mask, strict=True) if counts])
    assert trained == f" Hello!<|end|> {PLAIN}<|end|>"


HARMLESS = (
    spoken(
        "what are some cuss words in english?", "Here's an incomplete list. Ass, dick, damn.", "That's me learning!"
    ),
    ("Good luck with it.", "You're a bastard."),
)


def test_hh_rlhf(corpus: Corpus, recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, (better, worse) = HARMLESS
    pair = {"chosen": f"{before}\n\nAssistant: {better}", "rejected": f"{before}\n\nAssistant: {worse}"}
    short = {"chosen": spoken(GREEN, PLAIN), "rejected": spoken(GREEN, "Human: tea is tea.\nReally.")}
    named = with_rows(
        recipe,
        tmp_path,
        "transcripts",
        pair,
        short,
        pair | {"rejected": pair["chosen"]},
        pair | {"rejected": spoken("another question?", worse)},
        pair | {"rejected": before},
        pair | {"rejected": f"{before}\n\nAssistant:"},
        pair | {"chosen": f"Note{pair['chosen']}"},
        pair | {"chosen": 5},
        short | {"chosen": spoken(GREEN, "word " * 500)},
    )
    long, plain = preferences(corpus, named)
    assert long["earlier"] == [
        "what are some cuss words in english?",
        "Here's an incomplete list. Ass, dick, damn.",
    ]
    assert long["prompt"] == "That's me learning!"
    assert "earlier" not in plain
    assert [answer["text"] for answer in plain["answers"]] == [PLAIN, "Human: tea is tea.\nReally."]
    assert plain["answers"][0] == {"text": PLAIN, "stopped": True, "source": "chosen", "rank": 1, "grade": None}
    assert (plain["kind"], plain["annotator"]) == ("preference", "public")
    assert plain["id"] != long["id"]
    for record in (long, plain):
        assert Label.model_validate(record).record().get("earlier") == record.get("earlier")
    assert capsys.readouterr().out == (
        "public: 2 of 9 rows used; 4 malformed, 1 the same answer twice, 1 answers to different prompts, 1 too long\n"
    )


def test_ultrafeedback(corpus: Corpus, recipe: Recipe, tmp_path: Path) -> None:
    row = {
        "prompt": GREEN,
        "prompt_id": "a" * 64,
        "chosen": said(GREEN, PLAIN),
        "rejected": said(GREEN, "Tea."),
        "messages": said(GREEN, PLAIN),
        "score_chosen": 8.5,
        "score_rejected": 4.0,
    }
    empty = row | {"rejected": said(GREEN, "")}
    [record] = preferences(corpus, with_rows(recipe, tmp_path, "messages", row, empty))
    assert record["prompt"] == GREEN
    assert [answer["rank"] for answer in record["answers"]] == [1, 2]


def test_what_is_kept_for_measuring_stays_out(corpus: Corpus, recipe: Recipe, tmp_path: Path) -> None:
    asked = held_out_prompts(corpus, recipe)[0].prompt
    rows = [
        {"chosen": said(*turns, "Yes."), "rejected": said(*turns, "No.")}
        for turns in ([GREEN], [asked.upper()], ["Hi", asked, "And now?"], ["What is eaten in France?"])
    ]
    assert [record["prompt"] for record in preferences(corpus, with_rows(recipe, tmp_path, "messages", *rows))] == [
        GREEN
    ]


def test_what_begins_alike_is_on_one_side_of_the_split(corpus: Corpus, recipe: Recipe, tmp_path: Path) -> None:
    rows = [
        {
            "chosen": spoken(f"Number {n}?", "Yes.", more, "Good."),
            "rejected": spoken(f"Number {n}?", "Yes.", more, "Bad."),
        }
        for n in range(30)
        for more in ("Why?", "Really?", "How so?")
    ]
    sides: dict[str, set[str]] = {}
    for record in preferences(corpus, with_rows(recipe, tmp_path, "transcripts", *rows)):
        sides.setdefault(record["earlier"][0], set()).add(record["split"])
    assert all(len(side) == 1 for side in sides.values())
    assert {split for side in sides.values() for split in side} == {"train", "test"}


@pytest.mark.parametrize(
    ("kind", "row", "said"),
    [
        (
            "instructions",
            {"instruction": "Hi", "output": "Hello"},
            "has no column 'context'; it has instruction, output",
        ),
        ("messages", {"conversations": []}, "of kind 'messages' has no column 'messages'"),
        ("transcripts", {"chosen": "a", "reject": "b"}, "has no column 'rejected'"),
        ("transcripts", {"chosen": "a", "rejected": "b"}, "no row of the source 'public' can be used: 1 malformed"),
    ],
)
def test_another_set_than_the_recipe_says_is_refused(
    kind: str, row: dict[str, Any], said: str, corpus: Corpus, recipe: Recipe, tmp_path: Path
) -> None:
    named = with_rows(recipe, tmp_path, kind, row)
    with pytest.raises(InputError, match=said):
        instructions(named) if named.sft.instructions else preferences(corpus, named)


def test_the_stages_learn_from_them(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_tokenizer: Any
) -> None:
    pairs = [
        {
            "chosen": spoken("Hi", "Hello!", f"Number {n}?", PLAIN),
            "rejected": spoken("Hi", "Hello!", f"Number {n}?", "x"),
        }
        for n in range(24)
    ] + [{"chosen": spoken(f"Is it {n}?", PLAIN), "rejected": spoken(f"Is it {n}?", "x")} for n in range(24)]
    named = with_rows(recipe, tmp_path, "transcripts", *pairs)
    named = small(named, "ranking", prompts=8, answers=2, max_new_tokens=4, held_out=0.3)
    family = random_family(tmp_path / "family", ("base", "sft"))
    write_json_lines(family.path / "sft" / "samples.jsonl", [{"step": 0, "prompt": "Hi", "text": "x", "stopped": True}])
    checkpoint = ranking.run(named, family)
    records = checkpoint.lines("rankings.jsonl")
    assert checkpoint.figures["preferences"] == sum(record["annotator"] == "public" for record in records) == 48
    assert checkpoint.figures["prompts"] == len(records) - 48
    assert "- public, " in (checkpoint.path / "README.md").read_text(encoding="utf-8")
    measured = reward.run(named, family).figures
    assert measured["accuracy_by_sources"]["chosen over rejected"]["pairs"] > 0
    assert dpo.run(named, family).figures["training_pairs"] > 20
    [record] = [record for record in records if record["prompt"] == "Number 3?"]
    tokens = encode_ranked(tiny_tokenizer, record, record["answers"][0])
    assert tokens == encode_exchange(tiny_tokenizer, "Number 3?", PLAIN, earlier=["Hi", "Hello!"])


def test_sft_counts_the_whole_conversation(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = Demonstration("Why?", "No.", "instruction", "good", ("word " * 300, "Yes."))
    monkeypatch.setattr(sft, "training_demonstrations", lambda *_: [long, Demonstration("Why?", "No.", "fact", "good")])
    monkeypatch.setattr(sft, "held_out_demonstrations", lambda *_: [Demonstration("Why?", "No.", "fact", "good")])
    figures = sft.run(recipe, random_family(tmp_path / "family", ("base",))).figures
    assert (figures["demonstrations"], figures["too_long"]) == (1, 1)
