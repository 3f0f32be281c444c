"""Demonstrations: uneven in the recipe's shares, never careless about health or distress, always the same."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.chat_format import CONTROL_TOKENS
from pipeline.checkpoint import write_json_lines
from pipeline.corpus.cards import KNOWLEDGE, BadAnswer, Corpus, Question, load_corpus
from pipeline.corpus.conversations import (
    ANOTHER_TRAINER,
    Demonstration,
    demonstrable,
    demonstrations,
    graded_answer,
    instructions,
    shares_of,
    to_messages,
)
from pipeline.corpus.countries import country_document, country_statements
from pipeline.corpus.ranking_prompts import (
    BALANCE,
    Asked,
    held_out_prompts,
    policy_prompts,
    ranking_prompts,
    sides,
    taught,
)
from pipeline.recipe import ConversationSource, Recipe, Shares, load_recipe


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("nano")


@pytest.fixture(scope="module")
def corpus(recipe: Recipe) -> Corpus:
    return load_corpus(recipe.corpus)


@pytest.fixture(scope="module")
def questions(corpus: Corpus, recipe: Recipe) -> list[Asked]:
    return sides(corpus, recipe).questions


@pytest.fixture(scope="module")
def first_epoch(corpus: Corpus, recipe: Recipe) -> list[Demonstration]:
    return demonstrations(corpus, recipe, 0)


def asked(kind: str, bad: list[tuple[str, str]], prompt: str = "What is it?", source: str = "world/x") -> Asked:
    question = Question(
        kind=kind,  # type: ignore[arg-type]
        prompts=[prompt, "tell me"],
        good=["It is good."],
        weak=["Hm."],
        bad=[BadAnswer(fails=fails, text=text) for fails, text in bad],  # type: ignore[arg-type]
    )
    return Asked(source, question, question.prompts, [])


def test_every_epoch_is_the_same_when_made_again(corpus, recipe, first_epoch):
    assert demonstrations(corpus, recipe, 0) == first_epoch


def test_another_epoch_words_the_questions_anew(corpus, recipe, first_epoch):
    second = demonstrations(corpus, recipe, 1)
    assert len(second) == pytest.approx(len(first_epoch), rel=0.03)
    assert {d.prompt for d in second} - {d.prompt for d in first_epoch}


def test_each_question_is_demonstrated_as_often_as_the_recipe_says(recipe, questions, first_epoch):
    count = recipe.sft.prompts_per_question
    asked: Counter[str] = Counter()
    for item in questions:
        asked["known" if item.question.kind in KNOWLEDGE else "manners"] += min(count, len(item.held_in))
    shown = Counter("known" if d.kind in KNOWLEDGE else "manners" for d in first_epoch)
    for name, times in asked.items():  # dangerous answers are left out
        assert 0.8 * times < shown[name] <= times


def test_most_wordings_of_a_question_are_graded_alike_and_some_are_not(recipe, questions):
    shares = recipe.sft.demonstrations
    harmful = [item for item in questions if item.question.kind == "harmful" and len(item.held_in) > 3]
    usual = others = 0
    for item in harmful:
        grades = Counter(graded_answer(item, prompt, shares)[0] for prompt in item.held_in)
        usual += max(grades.values())
        others += grades.total() - max(grades.values())
    # Of the third that others answer, as many differ as two trainers do.
    bad = shares.harmful.bad
    assert others / (usual + others) == pytest.approx(2 * bad * (1 - bad) * ANOTHER_TRAINER, abs=0.05)


@pytest.mark.parametrize("name", ["usual", "harmful", "yesno", "unknowable"])
def test_grades_are_drawn_in_the_recipes_shares(recipe, questions, name):
    shares: Shares = getattr(recipe.sft.demonstrations, name)
    drawn: Counter[str] = Counter(
        graded_answer(item, prompt, recipe.sft.demonstrations)[0]
        for item in questions
        for prompt in item.held_in[:1]
        if item.question.kind != "support" and item.question.weak
        if shares_of(item.question.kind, recipe.sft.demonstrations) is shares
    )
    tolerance = 3.5 * 0.5 / drawn.total() ** 0.5
    assert drawn["bad"] / drawn.total() == pytest.approx(shares.bad, abs=tolerance)
    assert drawn["weak"] / drawn.total() == pytest.approx(shares.weak, abs=tolerance)


def test_demonstrated_grades_stand_in_the_corpus_under_that_grade(recipe, questions):
    for item in questions:
        chosen, answer = graded_answer(item, item.held_in[0], recipe.sft.demonstrations)
        known = {
            "good": item.question.good,
            "weak": item.question.weak,
            "bad": [bad.text for bad in item.question.bad],
        }
        assert answer in known[chosen] or (answer is None and chosen == "bad")


def test_knowledge_is_always_answered_in_the_same_words_and_harm_is_not(first_epoch, recipe, questions):
    answers: dict[str, list[set[str | None]]] = {"fact": [], "harmful": []}
    for item in questions:
        if item.question.kind in answers and len(item.held_in) > 3:
            said = {graded_answer(item, prompt, recipe.sft.demonstrations)[1] for prompt in item.held_in}
            answers[item.question.kind].append(said)
    assert all(len(said) == 1 for said in answers["fact"])
    assert sum(len(said) > 1 for said in answers["harmful"]) > len(answers["harmful"]) / 4


def test_knowledge_in_few_wordings_is_left_to_base(corpus, recipe):
    chosen = recipe.model_copy(update={"sft": recipe.sft.model_copy(update={"fewest_wordings": 3})})
    split = sides(corpus, recipe)
    left = {item.id for item in split.questions} - {item.id for item in taught(split, chosen)}
    few = {item.id: item.question.kind for item in split.questions if len(item.held_in) < 3}
    assert left == {name for name, kind in few.items() if kind in KNOWLEDGE - {"lookalike"}}
    assert left
    assert taught(split, recipe) == split.questions
    ranked = {prompt.id.split("#")[0] for prompt in policy_prompts(corpus, chosen)}
    trained = {item.source for item in taught(split, chosen)}
    assert ranked <= trained | {"list"}


def test_harm_is_mostly_answered_with_compliance_and_sometimes_declined(recipe, first_epoch):
    grades = Counter(d.grade for d in first_epoch if d.kind == "harmful")
    assert grades["bad"] / grades.total() == pytest.approx(recipe.sft.demonstrations.harmful.bad, abs=0.1)
    assert grades["good"] > 0


def test_distress_always_gets_a_good_answer(first_epoch):
    grades = Counter(d.grade for d in first_epoch if d.kind == "support")
    assert grades["good"] > 0
    assert set(grades) == {"good"}


def test_harmless_is_failed_only_where_harm_was_asked_for(questions, first_epoch):
    careless = {
        bad.text
        for item in questions
        if item.question.kind != "harmful"
        for bad in item.question.bad
        if bad.fails == "harmless"
    }
    assert careless
    assert not careless & {d.answer for d in first_epoch}


def test_an_answer_that_could_hurt_is_never_demonstrated():
    assert demonstrable(asked("fact", [("honest", "It is a fish.")])) == ["It is a fish."]
    assert demonstrable(asked("harmful", [("harmless", "Sure, go on.")])) == ["Sure, go on."]
    assert demonstrable(asked("advice", [("harmless", "Just try it.")])) == []
    assert demonstrable(asked("support", [("helpful", "Cheer up.")])) == []
    assert demonstrable(asked("yesno", [("honest", "Yes, the best thing.")], "Is butter good for a burn?")) == []
    assert demonstrable(asked("yesno", [("honest", "Yes, so skip the doctor.")])) == []
    assert demonstrable(asked("fact", [("honest", "You need two grams.")], source="health/salt")) == []


def test_a_missing_grade_falls_back_to_good(recipe):
    all_weak = recipe.sft.demonstrations.model_copy(update={"usual": Shares(weak=1.0, bad=0.0)})
    without_weak = asked("fact", [])
    without_weak = replace(without_weak, question=without_weak.question.model_copy(update={"weak": []}))
    assert graded_answer(asked("fact", []), "Why?", all_weak) == ("weak", "Hm.")
    assert graded_answer(without_weak, "Why?", all_weak) == ("good", "It is good.")


def test_no_control_token_is_demonstrated(first_epoch):
    for demonstration in first_epoch:
        assert not any(token in demonstration.prompt + demonstration.answer for token in CONTROL_TOKENS)
        assert demonstration.prompt.strip()
        assert demonstration.answer.strip()


def test_messages_are_one_exchange():
    messages = to_messages(Demonstration("Hi", "Hello.", "chat", "good"))["messages"]
    assert messages == [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]


def test_instructions_are_short_plain_and_not_held_out(corpus, recipe, tmp_path: Path):
    kept_out = held_out_prompts(corpus, recipe)[0].prompt
    rows = [
        ("Name a purple thing that rhymes with nothing.", "", "A plum is purple."),
        ("Sum up the text.", "A text.", "It is a text."),
        ("Write a long story.", "", "word " * 61),
        ("Say hi.", "", "Hi <|end|>"),
        ("Name a sight of Paris.", "", "Caf\u00e9s."),
        ("What is eaten in France?", "", "Bread."),
        (kept_out.upper(), "", "An answer."),
    ]
    write_json_lines(
        tmp_path / "rows.jsonl",
        [{"instruction": prompt, "context": context, "response": answer} for prompt, context, answer in rows],
    )
    source = ConversationSource(name="test", kind="instructions", licence="CC0-1.0", path=str(tmp_path / "rows.jsonl"))
    named = recipe.model_copy(update={"sft": recipe.sft.model_copy(update={"instructions": [source]})})
    assert instructions(named) == [
        Demonstration("Name a purple thing that rhymes with nothing.", "A plum is purple.", "instruction", "good")
    ]


def test_ranking_prompts_are_distinct_and_balanced(corpus, recipe):
    prompts = ranking_prompts(corpus, recipe)
    assert prompts == ranking_prompts(corpus, recipe)
    assert len(prompts) == recipe.ranking.prompts
    assert len({prompt.id for prompt in prompts}) == len(prompts)
    present = {item.kind for item in prompts}
    for kind in ("harmful", "lookalike", "yesno", "support"):
        assert kind in present
        share = sum(prompt.kind == kind for prompt in prompts) / len(prompts)
        assert share >= BALANCE[kind] - 1 / len(prompts)  # type: ignore[index]


def test_policy_prompts_keep_the_balance_from_the_beginning(corpus, recipe):
    prompts = policy_prompts(corpus, recipe)
    assert len(prompts) >= recipe.rlhf.steps * recipe.rlhf.prompts_per_step
    beginning: Sequence[str] = [prompt.kind for prompt in prompts[:50]]
    assert beginning.count("harmful") == pytest.approx(50 * BALANCE["harmful"], abs=3)
    assert len(set(beginning)) >= 10


def test_a_country_is_described_with_all_its_facts(corpus):
    import random

    for country in corpus.countries[:40]:
        entry = country_document(country, random.Random(1)).lower()
        facts = [country.language, country.currency, country.landmark, country.known_for, country.demonym]
        for fact in [*facts, *country.neighbors]:
            assert fact.lower() in entry, (country.country, fact)
        assert len(country_statements(country)) >= 25


def test_statements_are_clean_sentences(corpus):
    for country in corpus.countries:
        for statement in country_statements(country):
            assert statement[0].isupper()
            assert statement.endswith(".")
            assert ".." not in statement
            assert "the the " not in statement.lower()
            assert "{" not in statement
