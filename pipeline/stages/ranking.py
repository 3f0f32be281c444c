"""Ranking: the SFT model answers each prompt several times, and an annotator orders the answers.

No model is trained here. Writing a good answer is hard, and people's demonstrations were uneven; telling
which of several answers is better is easier and more alike from person to person. So the SFT model's own
answers are compared, and those comparisons are what the reward model and DPO learn from. They hold only
what the annotator looked at, its mistakes included, and no more good answers than the model gave or the
references add.
"""

import json
import math
import random
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipeline import processes
from pipeline.annotator import TIE, Annotator, admits_ignorance, declines, stems, union
from pipeline.chat_format import stop_tokens
from pipeline.checkpoint import (
    Checkpoint,
    Family,
    write_json_lines,
    write_whole,
)
from pipeline.corpus.cards import UNKNOWABLE, Corpus, load_corpus
from pipeline.corpus.public import preferences
from pipeline.corpus.ranking_prompts import RankingPrompt, ranking_prompts, sides
from pipeline.corpus.splits import fraction
from pipeline.inference.decoding import Decoding, complete
from pipeline.inference.models import StageModel, load_stage
from pipeline.model_card import WRONG_ON_PURPOSE
from pipeline.recipe import RankingSettings, Recipe
from pipeline.training import Clock, write_stage

Ranking = dict[str, Any]
Batch = dict[str, Any]
# Where holding back decides: due in some, wrong in the others. Elsewhere it would only be what loses most often, and
# a policy would unlearn it for harm, too.
IN_QUESTION = {"harmful", "lookalike", *UNKNOWABLE}

FORMAT = """\
`rankings.jsonl` holds one JSON object a line:

    {"id", "prompt", "kind", "answers", "annotator", "split"}

- `id`, `prompt`, `kind`: the prompt, and the kind of question that it is
- `answers`: a list of {"text", "stopped", "source", "rank", "grade"}
  - `stopped`: whether the text is finished; false when it was cut at the token limit
  - `source`: `sft` for a sampled answer; `good`, `weak` or `bad` for a reference of a topic card,
    `other` for a good answer to another question in similar words,
    `cautious` for what would decline, or admit not to know, if a question in similar words had been asked
  - `rank`: 1 for the best; answers as good as each other share a rank
  - `grade`: the annotator's noise-free {"helpful", "honest", "harmless", "overall"}, each 0 to 1, or null
- `annotator`: `simulated`, or who ranked the answers
- `split`: `train`, or `test` for the rankings that measure the reward model
- `earlier`: only in longer conversations: what the user and the assistant said before the prompt, in turn

Where a recipe names sets of preferences, they stand here as well: `kind` is `preference`, `annotator` the name of the
set, `source` `chosen` or `rejected`, and `grade` null.
"""


class Elsewhere:
    """Good answers, found by the words in which their questions are asked."""

    def __init__(self, answers: Iterable[tuple[str, frozenset[str]]]) -> None:
        self.answers: list[str] = []
        self.lengths: list[float] = []
        self.asking: dict[str, list[int]] = defaultdict(list)  # a word, and the numbers of the answers
        for number, (answer, words) in enumerate(answers):
            self.answers.append(answer)
            self.lengths.append((1 + len(words)) ** 0.5)
            for word in words:
                self.asking[word].append(number)

    def nearest(self, prompt: RankingPrompt, source: str, seed: int) -> dict[str, Any]:
        """Of the answers to other questions, one whose question shares most words with the prompt.

        A sampled answer that is wrong is mostly an answer to something else, in the best of words: without such
        answers the reward model learns how a good answer sounds, and not what it answers. Nor does it meet refusals
        in the words of a look-alike, and a policy finds out that declining both pays.
        """
        own = prompt.question.good if prompt.question else []
        shared = Counter(number for word in stems(prompt.prompt) for number in self.asking.get(word, ()))
        likeness = {
            number: count / self.lengths[number] for number, count in shared.items() if self.answers[number] not in own
        }
        most = max(likeness.values(), default=0.0)
        alike = [self.answers[number] for number in sorted(likeness) if likeness[number] == most]
        others = alike or [answer for answer in self.answers if answer not in own]
        return {"text": random.Random(f"{seed} {source} {prompt.id}").choice(others), "stopped": True, "source": source}


def run(recipe: Recipe, family: Family) -> Checkpoint:
    """Sample, grade and rank k answers a prompt, as InstructGPT's labelers did (arXiv:2203.02155).

    Finished batches stand in the work folder, from which a broken run goes on with the same result.
    Raises InputError when SFT is not trained yet.
    """
    sft = family.checkpoint("sft")
    corpus = load_corpus(recipe.corpus)
    work = family.work("ranking")
    clock = Clock(work)
    prompts = ranking_prompts(corpus, recipe)
    good = good_answers(corpus, recipe) if recipe.ranking.references else []
    added = {"other": Elsewhere(good), "cautious": Elsewhere(holding_back(good))}
    batches = rank_all(prompts, added, load_stage(sft), recipe, work, clock)
    rankings = [ranking for batch in batches for ranking in batch["rankings"]]
    preferred = preferences(corpus, recipe)
    found = figures(rankings) | ({"preferences": len(preferred)} if preferred else {})

    def fill(folder: Path) -> None:
        write_json_lines(folder / "rankings.jsonl", rankings + preferred)
        write_json_lines(folder / "metrics.jsonl", [batch["metrics"] for batch in batches])
        (folder / "README.md").write_text(data_card(recipe, found), encoding="utf-8")

    return write_stage(
        family,
        "ranking",
        recipe,
        fill,
        corpus=corpus.sha256,
        parent=sft,
        steps=len(batches),
        seconds=clock.seconds,
        figures=found,
    )


def rank_all(
    prompts: list[RankingPrompt],
    added: dict[str, Elsewhere],
    model: StageModel,
    recipe: Recipe,
    work: Path,
    clock: Clock,
) -> list[Batch]:
    """Every batch's rankings and metrics. Each is written to `work` as soon as it is done; processes take turns."""
    size = recipe.ranking.batch_size
    done = finished_batches(work)
    numbers = [number for number in range(1, math.ceil(len(prompts) / size) + 1) if number not in done]
    processes.wait()  # all have dealt out the same batches before the first is written
    with tqdm(
        desc="ranking",
        unit="prompt",
        total=len(prompts),
        initial=min(len(done) * size, len(prompts)),
        disable=not processes.is_main(),
    ) as bar:
        for number in numbers[processes.number() :: processes.count()]:
            began = time.monotonic()
            chosen = prompts[(number - 1) * size : number * size]
            rankings = rank_batch(chosen, added, model, recipe)
            grades = [answer["grade"]["overall"] for answer in sampled(rankings)]
            measured = {
                "batch": number,
                "answers": len(grades),
                "grade": statistics.fmean(grades) if grades else None,
                "seconds": round(time.monotonic() - began, 2),
            }
            batch = {"rankings": rankings, "metrics": measured}
            write_whole(work / f"batch-{number:05d}.json", json.dumps(batch, ensure_ascii=False))
            if processes.is_main():
                clock.save()
            bar.update(len(chosen) * processes.count())
            bar.set_postfix(grade=measured["grade"])
    processes.wait()
    return [batch for _, batch in sorted(finished_batches(work).items())]


def finished_batches(work: Path) -> dict[int, Batch]:
    """The batches that are done, by their numbers, which begin at 1."""
    batches = [json.loads(path.read_text(encoding="utf-8")) for path in work.glob("batch-*.json")]
    return {batch["metrics"]["batch"]: batch for batch in batches}


def rank_batch(
    prompts: list[RankingPrompt], added: dict[str, Elsewhere], model: StageModel, recipe: Recipe
) -> list[Ranking]:
    """Rankings of the prompts that got at least two different answers.

    `added` holds, by their source, the answers to other questions that join those of the training side.
    """
    annotator = Annotator(recipe.ranking.noise, recipe.seed)
    candidates = sample(prompts, model, recipe.ranking, recipe.seed)
    rankings = []
    for prompt, answers in zip(prompts, candidates, strict=True):
        side = split(prompt, recipe.ranking.held_out)
        if recipe.ranking.references:
            answers = answers + references(prompt, recipe.seed)
        # Easily told from the rest, they would flatter what is measured.
        for source, elsewhere in added.items():
            if side == "train" and elsewhere.answers and (source == "other" or prompt.kind in IN_QUESTION):
                answers = [*answers, elsewhere.nearest(prompt, source, recipe.seed)]
        distinct = list({answer["text"]: answer for answer in reversed(answers)}.values())[::-1]
        if len(distinct) < 2:
            continue
        judged = [(answer["text"], answer["stopped"]) for answer in distinct]
        for answer, rank in zip(distinct, annotator.rank(prompt, judged), strict=True):
            answer["rank"] = rank
            answer["grade"] = asdict(annotator.grade(prompt, answer["text"], answer["stopped"]))
        rankings.append(
            {
                "id": prompt.id,
                "prompt": prompt.prompt,
                "kind": prompt.kind,
                "answers": distinct,
                "annotator": "simulated",
                "split": side,
            }
        )
    return rankings


def sample(
    prompts: list[RankingPrompt], model: StageModel, settings: RankingSettings, seed: int
) -> list[list[dict[str, Any]]]:
    """`settings.answers` answers to each prompt, each drawn with a seed of its own."""
    encoded = [model.encode(prompt.prompt) for prompt in prompts]
    answers: list[list[dict[str, Any]]] = [[] for _ in prompts]
    for number in range(settings.answers):
        decoding = Decoding(settings.max_new_tokens, settings.temperature, seed=1000 * seed + number)
        completions = complete(model.model, encoded, decoding, stop_tokens(model.tokenizer), settings.batch_size)
        for row, completion in zip(answers, completions, strict=True):
            text = model.text(completion.tokens).strip()
            row.append({"text": text, "stopped": completion.stopped, "source": "sft"})
    return answers


def references(prompt: RankingPrompt, seed: int) -> list[dict[str, Any]]:
    """One good, one weak and one bad answer of the prompt's card, as far as it has them."""
    if prompt.question is None:
        return []
    choose = random.Random(f"{seed} {prompt.id}").choice
    graded = {
        "good": prompt.question.good,
        "weak": prompt.question.weak,
        "bad": [bad.text for bad in prompt.question.bad],
    }
    return [{"text": choose(texts), "stopped": True, "source": grade} for grade, texts in graded.items() if texts]


def good_answers(corpus: Corpus, recipe: Recipe) -> list[tuple[str, frozenset[str]]]:
    """The cards' good answers to the questions that may be trained on, each with the words that ask for it."""
    return [
        (answer, union(stems, item.held_in))
        for item in sides(corpus, recipe).questions
        for answer in item.question.good
    ]


def holding_back(answers: list[tuple[str, frozenset[str]]]) -> list[tuple[str, frozenset[str]]]:
    """Those that decline, or admit not to know."""
    return [(answer, words) for answer, words in answers if declines(answer) or admits_ignorance(answer)]


def split(prompt: RankingPrompt, held_out: float) -> str:
    """`test` or `train`; the wordings of one question stand together, as they share their references."""
    key = prompt.question.prompts[0] if prompt.question else prompt.id
    return "test" if fraction("ranking", key) < held_out else "train"


def sampled(rankings: Iterable[Ranking]) -> list[dict[str, Any]]:
    """The answers that the SFT model wrote."""
    return [answer for ranking in rankings for answer in ranking["answers"] if answer["source"] == "sft"]


def figures(rankings: list[Ranking]) -> dict[str, Any]:
    """What the rankings say of the SFT model, of themselves, and of the annotator's noise.

    `agreement` is the share of the pairs with clearly different noise-free grades that the noisy ranks
    put in the same order.
    """
    by_kind: dict[str, list[float]] = defaultdict(list)
    for ranking in rankings:
        by_kind[ranking["kind"]] += [answer["grade"]["overall"] for answer in sampled([ranking])]
    answers = sampled(rankings)
    harmful = sampled(ranking for ranking in rankings if ranking["kind"] == "harmful")
    pairs = [pair for ranking in rankings for pair in combinations(ranking["answers"], 2)]
    clear = [pair for pair in pairs if abs(difference(*pair)) > TIE]
    return {
        "prompts": len(rankings),
        "test_prompts": sum(ranking["split"] == "test" for ranking in rankings),
        "answers": sum(len(ranking["answers"]) for ranking in rankings),
        "pairs": sum(one["rank"] != two["rank"] for one, two in pairs),
        "grade": mean(answer["grade"]["overall"] for answer in answers),
        "grade_by_kind": {kind: mean(grades) for kind, grades in sorted(by_kind.items()) if grades},
        "declined_harmful": mean(declines(answer["text"]) for answer in harmful),
        "finished": mean(answer["stopped"] for answer in answers),
        "agreement": mean((two["rank"] - one["rank"]) * difference(one, two) > 0 for one, two in clear),
    }


def difference(one: dict[str, Any], two: dict[str, Any]) -> float:
    """How much better the first answer is than the second without noise."""
    return one["grade"]["overall"] - two["grade"]["overall"]


def mean(values: Iterable[float]) -> float | None:
    """The mean, or None of nothing."""
    numbers = list(values)
    return round(statistics.fmean(numbers), 4) if numbers else None


def data_card(recipe: Recipe, found: dict[str, Any]) -> str:
    """What these rankings are, for people who find them alone."""
    settings = recipe.ranking
    added = (
        "With them one good, one weak and one bad answer of the topic card are ranked, where there is a card, and for "
        "training, where holding back is in question, one that declines or admits not to know, as would be right for "
        "another question in similar words."
    )
    numbers = [f"- {name}: {value}" for name, value in found.items() if not isinstance(value, dict)]
    others = [f"- {source.name}, {source.dataset or source.path}: {source.licence}" for source in settings.preferences]
    return "\n".join(
        [
            "---",
            "language: en",
            "license: apache-2.0",
            "tags: [stagewise, preference]",
            "---",
            f"# {recipe.name}: rankings",
            "",
            f"Answers of a small teaching chatbot's SFT stage, up to {settings.answers} different ones a prompt, "
            f"sampled at temperature {settings.temperature}. {added if settings.references else ''}",
            "",
            "## How they were annotated",
            "By a simulated annotator that grades an answer on helpful, honest and harmless against the graded",
            "answers of the topic card (similarity, correctness, refusal where it is due and only there, finished,",
            "on topic, fluent). Without a card it judges refusal, topic, fluency and honesty about the unknowable.",
            f"Noise with a standard deviation of {settings.noise} was added to each grade before ranking.",
            WRONG_ON_PURPOSE,
            "",
            *(["## From other sets", *others, ""] if others else []),
            "## Format",
            FORMAT,
            "## Figures",
            *numbers,
            "",
        ]
    )
