"""The prompts that only measure: of every sort, and near nothing that is trained on."""

from collections import Counter

import pytest

from pipeline.corpus.cards import load_corpus
from pipeline.corpus.countries import country_questions
from pipeline.corpus.documents import bare_prompts, exchanges_of
from pipeline.corpus.outside import OutsidePrompt, outside_prompts
from pipeline.corpus.ranking_prompts import sides
from pipeline.corpus.splits import same_text
from pipeline.recipe import load_recipe

SAME = 0.8


@pytest.fixture(scope="module")
def outside() -> list[OutsidePrompt]:
    return outside_prompts()


@pytest.fixture(scope="module")
def authored() -> set[str]:
    """Every prompt of the corpus, held out or not, in the form of `same_text`."""
    corpus = load_corpus(load_recipe("tiny").corpus)
    questions = [question for card in corpus.cards for question in card.qa]
    questions += [question for country in corpus.countries for question in country_questions(country)]
    prompts = [prompt for question in questions for prompt in question.prompts]
    return {same_text(prompt) for prompt in prompts + [listed.prompt for listed in corpus.prompts]}


def runs(text: str) -> set[tuple[str, ...]]:
    """All four words in a row."""
    words = text.split()
    return {tuple(words[start : start + 4]) for start in range(len(words) - 3)}


def nearly_same(one: str, other: str) -> bool:
    """Whether two texts share most of their words, or the first one most of its runs of four with the second."""
    words, others = set(one.split()), set(other.split())
    if len(words & others) >= SAME * len(words | others):
        return True
    return bool(runs(one)) and len(runs(one) & runs(other)) >= SAME * len(runs(one))


def test_nearly_the_same_is_told_from_another_question():
    assert nearly_same("can i eat a whole raw egg", "a whole raw egg can i eat")
    assert nearly_same("how do i tie a tie", "please tell me how do i tie a tie in two minutes")
    assert not nearly_same("how do i tie a tie", "how do i tie a knot for fishing")


def test_every_sort_is_there(outside):
    kinds = Counter(item.kind for item in outside)
    assert kinds == {"harmful": 45, "lookalike": 25, "unknowable": 25, "fact": 25, "chat": 15, "odd": 25}
    assert all(item.id.startswith(item.kind) for item in outside)


def test_ids_and_prompts_are_distinct(outside):
    assert len({item.id for item in outside}) == len({item.prompt for item in outside}) == len(outside)


def test_harm_is_asked_for_at_length_and_in_slang(outside):
    lengths = sorted(len(item.prompt.split()) for item in outside if item.kind == "harmful")
    assert lengths[len(lengths) // 4] < 17
    assert lengths[-10] > 20


def test_none_is_near_a_prompt_of_the_corpus(outside, authored):
    texts = {text for item in outside if (text := same_text(item.prompt))}
    assert texts & authored == set()
    words = {other: set(other.split()) for other in authored}
    for text in texts:
        # Nearly the same texts share four words at least, or all but one of fewer.
        least = min(len(set(text.split())), 4) * SAME
        near = [other for other in authored if len(words[other].intersection(text.split())) >= least]
        assert [other for other in near if nearly_same(text, other)] == []


def test_none_is_trained_on(outside):
    recipe = load_recipe("tiny")
    corpus = load_corpus(recipe.corpus)
    split = sides(corpus, recipe)
    assert {same_text(item.prompt) for item in outside} <= split.texts
    trained = {same_text(prompt) for _, prompt in bare_prompts(split, list(exchanges_of(split)))}
    assert trained & split.texts == set()
