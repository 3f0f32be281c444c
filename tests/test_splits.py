"""What is held out stays out of SFT, ranking and RL data, and stays where it is when the corpus grows."""

import re
from dataclasses import replace

import pytest

from pipeline.corpus.cards import Card, Corpus, load_corpus
from pipeline.corpus.conversations import Demonstration, demonstrations
from pipeline.corpus.countries import TOPICS, country_questions, fill, held_in_country_questions
from pipeline.corpus.ranking_prompts import (
    RankingPrompt,
    held_out_country_names,
    held_out_prompts,
    names_country,
    policy_prompts,
    question_text,
    ranking_prompts,
    sides,
)
from pipeline.corpus.splits import card_is_held_out, country_is_held_out, held_in, held_out, repeats, same_text
from pipeline.recipe import Recipe, load_recipe

SHARE = 0.2


@pytest.fixture(scope="module", params=["nano", "tiny"])
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return load_recipe(request.param)


@pytest.fixture(scope="module")
def corpus(recipe: Recipe) -> Corpus:
    return load_corpus(recipe.corpus)


@pytest.fixture(scope="module")
def kept_out(corpus: Corpus, recipe: Recipe) -> list[RankingPrompt]:
    return held_out_prompts(corpus, recipe)


@pytest.fixture(scope="module")
def trained(corpus: Corpus, recipe: Recipe) -> dict[str, list[RankingPrompt] | list[Demonstration]]:
    return {
        "sft": demonstrations(corpus, recipe, 0) + demonstrations(corpus, recipe, 1),
        "ranking": ranking_prompts(corpus, recipe),
        "rlhf": policy_prompts(corpus, recipe),
    }


def test_no_held_out_prompt_is_trained_on(trained, kept_out):
    texts = {same_text(prompt.prompt) for prompt in kept_out}
    for name, prompts in trained.items():
        assert prompts
        assert not texts & {same_text(prompt.prompt) for prompt in prompts}, name


def test_further_wordings_are_trained_on_unless_they_repeat_what_is_held_out(corpus, recipe):
    item = next(item for item in sides(corpus, recipe).questions if item.held_out)
    further = ["Seven zebras asked me that at noon.", f"My aunt wonders: {item.held_out[0]}"]
    grown = item.question.model_copy(update={"also": further})
    cards = [
        card.model_copy(update={"qa": [grown if question == item.question else question for question in card.qa]})
        for card in corpus.cards
    ]
    found = next(each for each in sides(replace(corpus, cards=cards), recipe).questions if each.id == item.id)
    kept = [prompt for prompt in item.held_in if prompt not in item.question.also]
    assert found.held_in == [*kept, further[0]]
    assert found.held_out == item.held_out


def test_every_split_has_prompts_to_measure_on(kept_out):
    splits = [prompt.split for prompt in kept_out]
    assert set(splits) == {"wording", "card", "list", "country"}
    assert min(splits.count(split) for split in set(splits)) >= 20


def test_held_out_countries_are_never_named(trained, corpus):
    names = held_out_country_names(corpus)
    assert len(names) > 50
    for prompts in trained.values():
        for prompt in prompts:
            text = prompt.prompt + "\n"
            if isinstance(prompt, Demonstration):
                text += prompt.answer
            elif prompt.question is not None:
                text += question_text(prompt.question)
            # Sudan and Spain are held out. These two names, even when mistyped, do not give anything away.
            text = re.sub(r"\bs[outh]{3,5} sudan|port of spain", "", text.lower())
            assert not names_country(text, names), text


def test_questions_of_held_out_cards_give_no_answers(trained, corpus, recipe):
    cards = [card for card in corpus.cards if card_is_held_out(card.id, recipe.corpus.held_out_cards)]
    assert cards
    answers = {answer for card in cards for question in card.qa for answer in question.good if len(answer) > 40}
    assert not answers & {demonstration.answer for demonstration in trained["sft"]}


def test_a_template_is_held_out_for_all_countries_or_for_none(corpus):
    france, japan = (
        next(country for country in corpus.countries if country.country == name) for name in ("France", "Japan")
    )
    for topic, of_france in zip(TOPICS[:5], held_in_country_questions(france, SHARE), strict=False):
        kept = held_in(list(topic.prompts), SHARE)
        assert 0 < len(kept) < len(topic.prompts)
        assert of_france.prompts == [fill(prompt, france) for prompt in kept]
    of_japan = held_in_country_questions(japan, SHARE)[0]
    assert [prompt.replace("France", "Japan").replace("france", "japan") for prompt in
            held_in_country_questions(france, SHARE)[0].prompts] == of_japan.prompts  # fmt: skip


def test_wordings_are_split_without_loss_and_never_all_held_out():
    for count in range(1, 9):
        prompts = [f"wording {number}" for number in range(count)]
        assert sorted(held_in(prompts, SHARE) + held_out(prompts, SHARE)) == prompts
        assert held_in(prompts, SHARE)
        assert bool(held_out(prompts, SHARE)) == (count > 2)


def test_about_half_of_the_countries_and_the_share_of_cards_are_held_out(corpus, recipe):
    countries = [country_is_held_out(country.country) for country in corpus.countries]
    assert 0.4 < sum(countries) / len(countries) < 0.6
    cards = [card_is_held_out(card.id, recipe.corpus.held_out_cards) for card in corpus.cards]
    assert sum(cards) / len(cards) == pytest.approx(recipe.corpus.held_out_cards, abs=0.03)


def test_a_new_card_moves_no_other_one(corpus, recipe):
    new = Card.model_validate(
        {
            "id": "world/pavement-art",
            "domain": "world",
            "title": "Pavement art",
            "facts": [],
            "passages": [],
            "qa": [
                {
                    "kind": "fact",
                    "prompts": ["What is pavement art made with?", "pavement art chalk or paint"],
                    "good": ["Pavement art is mostly made with chalk."],
                    "weak": [],
                    "bad": [{"fails": "honest", "text": "Pavement art is made with honey."}],
                }
            ],
        }
    )
    small = replace(corpus, cards=corpus.cards[:80])
    grown = replace(small, cards=[new, *small.cards])

    def sides(some: Corpus) -> tuple[set[str], set[tuple[str, str, str]]]:
        kept = {(prompt.id, prompt.prompt, prompt.split) for prompt in held_out_prompts(some, recipe)}
        answered: set[tuple[str, str, str]] = {
            (demonstration.prompt, demonstration.answer, demonstration.grade)
            for demonstration in demonstrations(some, recipe, 0)
        }
        own = {entry for entry in answered if "honey" in entry[1] or "chalk" in entry[1]}
        return {entry[0] for entry in kept if "pavement" not in entry[0]}, answered - own

    assert sides(small) == sides(grown)


def test_wrong_answers_about_a_country_name_what_belongs_to_another(corpus):
    others = [country for country in corpus.countries if not country_is_held_out(country.country)]
    asked = [
        (country, question) for country in corpus.countries[:60] for question in country_questions(country, others)
    ]
    assert sum(not question.bad for _, question in asked) <= 3
    for country, question in asked:
        for bad in question.bad:
            assert bad.text not in question.good, country.country


def test_disputed_capitals_are_not_asked_for(corpus):
    for country in corpus.countries:
        prompts = " ".join(prompt for question in country_questions(country) for prompt in question.prompts)
        assert ("capital" in prompts) == (country.country not in ("Israel", "Palestine"))


def test_a_text_repeats_a_prompt_that_it_begins_or_ends_with():
    prompts = {"what is a roux", "hello there"}
    assert repeats("What is a roux?", prompts)
    assert repeats("My son asked me this. What is a roux?", prompts)
    assert repeats("what is a roux please", prompts)
    assert not repeats("Say what is a roux in French", prompts)
    assert not repeats("Hello there, who are you?", prompts)
