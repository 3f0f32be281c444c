"""The prompts on which a family is measured: held out of SFT, rankings and RLHF, the same for every stage.

Base may have read what the answer to one is, in other words: knowledge comes from pre-training. It has read
neither the prompts themselves nor, next to each other, the questions and answers of a held-out card.
"""

from dataclasses import dataclass

from pipeline.corpus.cards import Corpus, Country, Kind, load_corpus
from pipeline.corpus.countries import capital, country_questions
from pipeline.corpus.outside import outside_prompts
from pipeline.corpus.ranking_prompts import RankingPrompt, digest, held_out_prompts, sides
from pipeline.corpus.splits import country_is_held_out, fraction
from pipeline.errors import InputError
from pipeline.recipe import Recipe

# What the annotator calls the kinds of the outside prompts. "odd" ones (one word, code, another language) are
# judged by their form alone, as small talk is.
OUTSIDE_KINDS: dict[str, Kind] = {
    "harmful": "harmful",
    "lookalike": "lookalike",
    "unknowable": "realtime",
    "fact": "fact",
    "chat": "chat",
    "odd": "chat",
}
# Kinds that several bars rest on, and of which only some count for each (myths, true facts), are asked more often.
OFTEN: dict[str, int] = {"yesno": 4, "harmful": 2, "lookalike": 2}


@dataclass(frozen=True)
class Probe:
    """A prompt to measure with. `capital_of` is the held-out country whose capital it asks for, if it does.

    `extra` marks those of OFTEN beyond the usual number: figures over several kinds leave them out, or these
    kinds would outweigh the rest.
    """

    prompt: RankingPrompt
    capital_of: Country | None = None
    outside: bool = False
    extra: bool = False


def probes(corpus: Corpus, recipe: Recipe, each: int) -> list[Probe]:
    """`each` prompts of every kind and split (of some kinds more, see OFTEN), and 5 x `each` capitals at most.

    Which ones is fixed by a hash, so that a longer report repeats a shorter one. Prompts about the held-out
    countries that ask for something else are left out: half a world of facts would outweigh the rest.
    """
    groups: dict[tuple[str, str], list[RankingPrompt]] = {}
    for prompt in sorted(held_out_prompts(corpus, recipe), key=lambda prompt: fraction("report", prompt.prompt)):
        if prompt.split != "country":
            groups.setdefault((prompt.kind, prompt.split), []).append(prompt)
    if not groups:
        raise InputError("the recipe holds nothing out of training, so there is nothing to measure on")
    chosen = [
        Probe(prompt, extra=number >= each)
        for kind, split in sorted(groups)
        for number, prompt in enumerate(groups[kind, split][: each * OFTEN.get(kind, 1)])
    ]
    return chosen + capital_probes(corpus)[: 5 * each]


def capital_probes(corpus: Corpus) -> list[Probe]:
    """One wording, another for each, of the question for the capital of every country never seen in SFT."""
    found = []
    for country in corpus.countries:
        if not country_is_held_out(country.country) or capital(country) is None:
            continue
        question = country_questions(country)[0]
        text = min(question.prompts, key=lambda prompt: fraction("report", prompt))
        prompt = RankingPrompt(f"capital#{digest(text)}", text, question.kind, question, "country")
        found.append(Probe(prompt, capital_of=country))
    return sorted(found, key=lambda probe: fraction("report", probe.prompt.prompt))


def outside_probes() -> list[Probe]:
    return [
        Probe(RankingPrompt(f"outside#{listed.id}", listed.prompt, OUTSIDE_KINDS[listed.kind], None), outside=True)
        for listed in outside_prompts()
    ]


def all_questions(recipe: Recipe) -> dict[str, RankingPrompt]:
    """Every prompt of the whole corpus that has graded answers, by its id, on whichever side it stands."""
    corpus = load_corpus(recipe.corpus.model_copy(update={"domains": None}))
    asked = [
        item.ranking_prompt(text, item.split) for item in sides(corpus, recipe).asked for text in item.question.prompts
    ]
    return {prompt.id: prompt for prompt in asked}
