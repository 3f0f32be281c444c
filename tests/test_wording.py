"""The same prompt as other people would type it."""

import random

from pipeline.corpus.wording import careless, contracted, mistyped, reworded, varied

PROMPT = "What is the capital of France?"


def test_wordings_vary_and_some_stay() -> None:
    rng = random.Random(0)
    wordings = [varied(PROMPT, rng) for _ in range(300)]
    assert len(set(wordings)) > 60
    assert 80 < wordings.count(PROMPT) < 200


def test_the_same_random_state_gives_the_same_wording() -> None:
    assert varied(PROMPT, random.Random(5)) == varied(PROMPT, random.Random(5))


def test_the_key_words_survive_all_but_typing_slips() -> None:
    rng = random.Random(1)
    kept = [wording for wording in (varied(PROMPT, rng) for _ in range(500)) if "france" in wording.lower()]
    assert len(kept) > 450


def test_a_rewording_asks_the_same() -> None:
    assert reworded("Can I take antibiotics with milk?", random.Random(0)).endswith("take antibiotics with milk?")


def test_contractions_go_both_ways() -> None:
    assert contracted("I do not know", random.Random(0)) == "I don't know"
    assert contracted("I don't know", random.Random(0)) == "I do not know"


def test_careless_typing_drops_punctuation_and_capitals() -> None:
    rng = random.Random(0)
    typed = {careless(PROMPT, rng) for _ in range(50)}
    assert "what is the capital of france" in typed


def test_a_slip_changes_one_word() -> None:
    slip = mistyped(PROMPT, random.Random(3))
    assert sum(one != other for one, other in zip(slip.split(), PROMPT.split(), strict=True)) == 1


def test_short_words_cannot_be_mistyped() -> None:
    assert mistyped("Is it so?", random.Random(0)) == "Is it so?"
