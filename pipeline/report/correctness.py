"""Whether an answer is correct, judged against a card's good answers, and how far people agree with that."""

import re
from pathlib import Path

from pipeline.annotator import correctness, fluency, opening, repeats, says_something, similarity, specifics
from pipeline.checkpoint import read_json_lines
from pipeline.corpus.cards import Country
from pipeline.corpus.ranking_prompts import RankingPrompt
from pipeline.corpus.splits import same_text
from pipeline.recipe import REPOSITORY, Recipe
from pipeline.report.figures import Figure, kappa, share
from pipeline.report.prompts import all_questions

# Answers of the first tiny family, read and judged by hand without knowing what a rule says.
JUDGED = REPOSITORY / "assets" / "judged-answers.jsonl"
METHOD = (
    "An answer counts as correct when the model finished it, it reads as language, what tells the card's good "
    "answers from its bad ones (names, numbers, yes or no, telling words) speaks for it, and it comes near to one of "
    "the good answers (cosine of content words and neighbouring pairs at least 0.25) or states the result of a sum. "
    "That is stricter than a reader with answers in words of their own, and it does not see every slip."
)
NEAR = 0.25  # cosine similarity to the nearest good answer
SURE = 0.6  # the annotator's certainty that an answer agrees with the good ones; 0.5 when nothing tells
RESULT = 0.9  # its certainty when a sum's result is stated
FLUENT = 0.7  # of 1: below, sentences repeat themselves or their words stand in no usual order


def is_correct(prompt: RankingPrompt, text: str, finished: bool) -> bool:
    """Whether an answer to a question of a card says what its good answers say; see METHOD."""
    question = prompt.question
    if question is None or not finished:
        return False
    if repeated := repeats(text, question):
        return repeated == "good"
    if not reads_as_language(text) or not says_something(prompt, text):
        return False
    certain = correctness(prompt, question, text)
    near = max(similarity(text, good) for good in question.good) >= NEAR
    return certain >= SURE and (near or (prompt.kind == "math" and certain >= RESULT))


def reads_as_language(text: str) -> bool:
    return fluency(text) >= FLUENT


def names_capital(country: Country, text: str) -> bool:
    """Whether the first sentence names the country's capital and nothing else that could be one."""
    first = opening(text)
    named = re.search(rf"\b{re.escape(same_text(country.capital))}\b", same_text(first))
    others = specifics(first) - specifics(f"in {country.country}, {country.capital}, {country.demonym}")
    return bool(named) and not others


def agreement(recipe: Recipe, path: Path = JUDGED) -> list[Figure]:
    """How often the rule and a reader agree; empty without the file of judged answers.

    Judgements of prompts that stand in the corpus no more are left out: there is nothing to match against.
    """
    if not path.is_file():
        return []
    prompts = all_questions(recipe)
    judged = [line for line in read_json_lines(path) if line["prompt_id"] in prompts]
    verdicts = [
        (is_correct(prompts[line["prompt_id"]], line["answer"], line["finished"]), line["correct"]) for line in judged
    ]
    if not verdicts:
        return []
    return [
        share("rule and reader agree", (rule == reader for rule, reader in verdicts)),
        share("correct by the rule", (rule for rule, _ in verdicts)),
        share("correct by the reader", (reader for _, reader in verdicts)),
        kappa("Cohen's kappa", verdicts),
    ]
