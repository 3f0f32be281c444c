"""Whether an answer is correct, judged against a card's good answers, and how far people agree with that."""

import re
from pathlib import Path

from pipeline.annotator import closeness, correctness, fluency, opening, repeats, says_something, specifics
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
    "the good answers (cosine of content words and neighbouring pairs at least 0.4). An answer that is right in words "
    "of its own is therefore missed, most of all on held-out cards, whose answers no stage has seen."
)
SURE = 0.6  # the annotator's certainty that an answer agrees with the good ones; 0.5 when nothing tells
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
    # The annotator's closeness is full from a cosine of 0.4 on. A laxer limit let nonsense about the right thing pass.
    return correctness(prompt, question, text) >= SURE and closeness(text, question.good) >= 1


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

    The samples of the file: "random", greedy answers to held-out wordings; "hard", sampled answers of which half
    were taken because a laxer rule called them correct; and "fresh", of which some were taken because this
    rule does. The rule's limit was set when the first two had been read, so the third is its test.
    Judgements of prompts that stand in the corpus no more are left out: there is nothing to match.
    """
    if not path.is_file():
        return []
    prompts = all_questions(recipe)
    verdicts: dict[str, list[tuple[bool, bool]]] = {}
    for line in read_json_lines(path):
        if prompt := prompts.get(line["prompt_id"]):
            rule = is_correct(prompt, line["answer"], line["finished"])
            verdicts.setdefault(line["sample"], []).append((rule, line["correct"]))
    together = [pair for found in verdicts.values() for pair in found]
    if not together:
        return []
    return [
        *(
            share(f"rule and reader agree, {sample} answers", (rule == reader for rule, reader in found))
            for sample, found in verdicts.items()
        ),
        share("rule and reader agree", (rule == reader for rule, reader in together)),
        share("correct by the rule", (rule for rule, _ in together)),
        share("correct by the reader", (reader for _, reader in together)),
        kappa("Cohen's kappa", together),
    ]
