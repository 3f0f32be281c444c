"""What the base stage reads."""

import json
import random
from collections import Counter
from itertools import islice, pairwise
from pathlib import Path

import pytest

from pipeline.corpus.cards import Corpus, load_corpus
from pipeline.corpus.countries import DISPUTED_CAPITAL, country_comparison, country_list
from pipeline.corpus.documents import AUTHORED_SHARES, Document, documents
from pipeline.corpus.ranking_prompts import held_out_texts, sides
from pipeline.corpus.splits import same_text
from pipeline.recipe import DocumentSource, Recipe, load_recipe

MANNERS = {"harmful", "identity", "realtime", "personal", "unknown", "support"}


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("nano")


@pytest.fixture(scope="module")
def corpus(recipe: Recipe) -> Corpus:
    return load_corpus(recipe.corpus)


@pytest.fixture(scope="module")
def read(recipe: Recipe, corpus: Corpus) -> list[Document]:
    return list(islice(documents(recipe, corpus, {}), 2000))


def test_authored_text_keeps_its_shares(read: list[Document]) -> None:
    characters: Counter[str] = Counter()
    for document in read:
        characters[document.origin] += len(document.text)
    total = sum(characters.values())
    for origin, share in AUTHORED_SHARES.items():
        assert characters[origin] / total == pytest.approx(share, abs=0.01)


def test_the_shares_are_whole() -> None:
    assert sum(AUTHORED_SHARES.values()) == pytest.approx(1)


def test_a_longer_run_reads_the_same_documents_first(recipe: Recipe, corpus: Corpus, read: list[Document]) -> None:
    assert list(islice(documents(recipe, corpus, {}), 50)) == read[:50]


def test_weak_and_bad_answers_never_enter(corpus: Corpus, read: list[Document]) -> None:
    text = "\n".join(document.text for document in read)
    answers = [question for card in corpus.cards for question in card.qa]
    good = {answer for question in answers for answer in question.good}
    unwanted = {bad.text for question in answers for bad in question.bad} | {
        weak for question in answers for weak in question.weak if len(weak) > 40
    }
    assert unwanted - good
    assert [answer for answer in unwanted - good if answer in text] == []


def test_answers_about_itself_and_about_harm_stay_out(corpus: Corpus, read: list[Document]) -> None:
    text = "\n".join(document.text for document in read)
    manners = [
        answer for card in corpus.cards for question in card.qa if question.kind in MANNERS for answer in question.good
    ]
    assert manners
    assert [answer for answer in manners if answer in text] == []


def test_held_out_prompts_stand_on_no_line(recipe: Recipe, corpus: Corpus, read: list[Document]) -> None:
    held_out = held_out_texts(corpus, recipe)
    papers = [document.text for document in read if document.origin == "question papers"]
    lines = {same_text(line.lstrip("-0123456789. ")) for paper in papers for line in paper.splitlines()}
    assert len(lines) > 1000
    assert lines & held_out == set()


def test_question_papers_hold_questions_without_answers(corpus: Corpus, read: list[Document]) -> None:
    answers = {answer for card in corpus.cards for question in card.qa for answer in question.good}
    papers = "\n".join(document.text for document in read if document.origin == "question papers")
    assert [answer for answer in answers if answer in papers] == []


def test_a_talk_stays_with_one_subject(corpus: Corpus, recipe: Recipe, read: list[Document]) -> None:
    sources: dict[str, set[str]] = {}
    for item in sides(corpus, recipe).questions:
        for answer in item.question.good:
            sources.setdefault(answer, set()).add(item.source)
    talks = [document.text for document in read if document.origin == "talks"]
    assert len(talks) > 20
    for talk in talks:
        speakers, said = zip(*(line.split(": ", 1) for line in talk.splitlines()), strict=True)
        subjects = [sources[text] for text in said if text in sources]
        assert len(set(speakers)) == 2
        assert len(subjects) > 2
        assert set.intersection(*subjects)


def test_a_comparison_tells_both_countries_facts(corpus: Corpus) -> None:
    for one, other in pairwise(corpus.countries):
        text = country_comparison(one, other, random.Random(one.country))
        for country in (one, other):
            assert country.currency in text
            assert country.known_for in text
            assert (country.capital in text) or {one.country, other.country} & set(DISPUTED_CAPITAL)
        assert ".." not in text
        assert ".," not in text.replace("D.C.,", "")


def test_a_list_gives_each_country_a_line_and_leaves_disputed_capitals_out(corpus: Corpus) -> None:
    seen = set()
    for seed in range(40):
        heading, *lines = country_list(corpus.countries, random.Random(seed)).splitlines()
        seen.add(heading)
        disputed = [line for line in lines if any(name in line.split() for name in DISPUTED_CAPITAL)]
        assert len(lines) == len(corpus.countries) - (len(DISPUTED_CAPITAL) if heading == "Capitals" else 0)
        assert not (disputed and heading == "Capitals")
    assert len(seen) == 4


def test_the_facts_of_every_country_are_told(corpus: Corpus, recipe: Recipe) -> None:
    text = "\n".join(document.text for document in islice(documents(recipe, corpus, {}), 6000))
    assert [country.country for country in corpus.countries if country.country not in text] == []


def test_real_text_joins_in_its_share(recipe: Recipe, corpus: Corpus, tmp_path: Path) -> None:
    rows = [{"id": str(number), "question": f"Question {number}?", "answer": f"Reply {number}"} for number in range(50)]
    file = tmp_path / "quiz.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    quiz = DocumentSource(name="quiz", kind="quiz", licence="CC0", share=0.25, path="quiz.jsonl")
    with_quiz = recipe.model_copy(update={"corpus": recipe.corpus.model_copy(update={"sources": [quiz]})})
    characters: Counter[bool] = Counter()
    for document in islice(documents(with_quiz, corpus, {"quiz": file}), 1000):
        characters[document.origin == "quiz"] += len(document.text)
    assert characters[True] / characters.total() == pytest.approx(0.25, abs=0.02)
