"""The same prompt as other people would type it."""

import random
import re

import pytest

from pipeline.corpus.cards import Kind, load_corpus
from pipeline.corpus.wording import (
    REASONS_AFTER,
    REASONS_BEFORE,
    asked_aside,
    asked_for_a_reason,
    careless,
    contracted,
    hesitant,
    in_key_words,
    mistyped,
    reordered,
    respelled,
    reworded,
    varied,
    with_synonyms,
    without_articles,
)
from pipeline.recipe import load_recipe

PROMPT = "What is the capital of France?"
NEGATION = re.compile(
    r"\b(?:not|no|never|without|nothing|nobody|cannot|"
    r"(?:ca|wo|do|does|did|is|are|was|should|would|could|have|has|had)n'?t)\b"
)


@pytest.fixture(scope="module")
def prompts() -> list[tuple[Kind, str]]:
    """(kind, prompt) of everything that is authored."""
    corpus = load_corpus(load_recipe("nano").corpus)
    asked = [(question.kind, prompt) for card in corpus.cards for question in card.qa for prompt in question.prompts]
    return asked + [(listed.kind, listed.prompt) for listed in corpus.prompts]


def all_of(change, prompt: str, tries: int = 200) -> set[str]:
    return {change(prompt, random.Random(seed)) for seed in range(tries)}


def negations(text: str) -> int:
    return len(NEGATION.findall(text.lower().replace("can not", "cannot").replace("no one", "nobody")))


def test_wordings_vary_and_some_stay() -> None:
    rng = random.Random(0)
    wordings = [varied(PROMPT, rng) for _ in range(300)]
    assert len(set(wordings)) > 90
    assert 80 < wordings.count(PROMPT) < 200


def test_about_a_third_of_all_prompts_stay(prompts: list[tuple[Kind, str]]) -> None:
    rng = random.Random(0)
    unchanged = sum(varied(prompt, rng) == prompt for _, prompt in prompts)
    assert 0.3 < unchanged / len(prompts) < 0.42


def test_the_same_random_state_gives_the_same_wording() -> None:
    assert varied(PROMPT, random.Random(5)) == varied(PROMPT, random.Random(5))


def test_the_key_words_survive_all_but_typing_slips() -> None:
    rng = random.Random(1)
    kept = [wording for wording in (varied(PROMPT, rng) for _ in range(500)) if "france" in wording.lower()]
    assert len(kept) == 500


def test_numbers_and_negations_survive(prompts: list[tuple[Kind, str]]) -> None:
    rng = random.Random(2)
    for kind, prompt in prompts:
        wording = varied(prompt, rng, kind != "harmful")
        assert re.findall(r"\d+", wording) == re.findall(r"\d+", prompt), (prompt, wording)
        assert negations(wording) == negations(prompt), (prompt, wording)


def test_a_request_for_harm_gets_no_excuse(prompts: list[tuple[Kind, str]]) -> None:
    rng = random.Random(3)
    reasons = {reason.lower().rstrip(".") for reason in REASONS_BEFORE + REASONS_AFTER}
    for kind, prompt in prompts:
        if kind == "harmful":
            wording = varied(prompt, rng).lower()
            assert not [reason for reason in reasons if reason in wording and reason not in prompt.lower()]


def test_a_rewording_asks_the_same() -> None:
    assert all(
        wording.endswith("take antibiotics with milk?")
        for wording in all_of(reworded, "Can I take antibiotics with milk?")
    )


def test_the_thing_may_come_first() -> None:
    assert {"The capital of France, what is it?", "Do you know what the capital of France is?"} <= all_of(
        reordered, PROMPT
    )
    assert "When I eat low carb, what can I order?" in all_of(reordered, "What can I order when I eat low carb?")
    assert all_of(reordered, "What is a hacksaw used for?") == {"What is a hacksaw used for?"}


def test_a_claim_keeps_its_direction() -> None:
    for wording in all_of(reordered, "Is it true that oxygen is not the main gas in the air?"):
        assert "xygen is not the main gas in the air" in wording


def test_words_are_exchanged_whole_and_never_in_names() -> None:
    assert all_of(with_synonyms, "How do my kids begin?") == {"How do my children begin?", "How do my kids start?"}
    for kept in ("What is in the kids' menu?", "Who wrote The Big Bike?", "Who is a beginner?"):
        assert all_of(with_synonyms, kept) == {kept}


def test_spellings_go_both_ways() -> None:
    assert all_of(respelled, "my favorite food") == {"my favourite food"}
    assert all_of(respelled, "my favourite food") == {"my favorite food"}


def test_contractions_go_both_ways() -> None:
    assert contracted("I do not know", random.Random(0)) == "I don't know"
    assert contracted("I don't know", random.Random(0)) == "I do not know"


def test_contractions_stay_out_of_other_words_and_ends() -> None:
    for kept in ("Why is this not ready?", "Tell me what it is.", "What should I have for breakfast?"):
        assert contracted(kept, random.Random(0)) == kept


def test_articles_that_count_stay() -> None:
    assert without_articles("Is the moon a star?", random.Random(0)) == "Is moon star?"
    for kept in ("what is vitamin a good for", "wait a few days", "twice a day", "a little salt"):
        assert without_articles(kept, random.Random(0)) == kept


def test_key_words_are_enough_for_a_search() -> None:
    assert in_key_words(PROMPT, random.Random(0)) == "capital France"
    assert in_key_words("what's the capital of Peru", random.Random(0)) == "capital Peru"
    for kept in ("What is my name?", "Who are you?", "Is it late?", "What is it?"):
        assert in_key_words(kept, random.Random(0)) == kept


def test_a_sentence_around_a_question_leaves_it_whole() -> None:
    for wording in all_of(asked_aside, PROMPT) | all_of(asked_for_a_reason, PROMPT):
        assert PROMPT in wording
        assert wording != PROMPT


def test_nothing_is_put_around_what_people_say_about_themselves() -> None:
    for own in ("I want to die.", "Where are my glasses?", "Why do I feel so empty?"):
        assert all_of(asked_for_a_reason, own) == {own}


def test_hesitation_comes_before_the_question() -> None:
    assert all(wording.endswith("hat is the capital of France?") for wording in all_of(hesitant, PROMPT))


def test_careless_typing_drops_punctuation_and_capitals() -> None:
    typed = all_of(careless, PROMPT)
    assert "what is the capital of france" in typed
    assert "Im at Annas house." in all_of(careless, "I'm at Anna's house.")


def test_a_slip_changes_one_word() -> None:
    slip = mistyped(PROMPT, random.Random(3))
    assert sum(one != other for one, other in zip(slip.split(), PROMPT.split(), strict=True)) == 1


def test_names_short_words_and_words_that_count_have_no_slips() -> None:
    for kept in ("Is it so?", "Is Gustav Mahler in?", "never three"):
        assert all_of(mistyped, kept) == {kept}
