"""How well base predicts text that it has not read, source by source."""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from pipeline.chat_format import encode_text
from pipeline.corpus.cards import KNOWLEDGE, Corpus
from pipeline.corpus.documents import FROM_ROWS
from pipeline.corpus.ranking_prompts import held_out_prompts, sides
from pipeline.corpus.sources import data_files, unread_rows
from pipeline.corpus.splits import fraction
from pipeline.recipe import REPOSITORY, DocumentSource, Recipe
from pipeline.report.figures import Figure, ratio

HELD_OUT = (
    "Held out means here: the text stands in none of base's documents. Of the authored text that are the questions "
    "of held-out cards with their good answers (base has read the cards' facts and passages, in other words) and the "
    "questions that are held out, without answers. Of a real source it is rows that the recipe does not "
    "read, cleaned like the others; near duplicates of rows that it reads have not been searched for."
)


@dataclass(frozen=True)
class Texts:
    """Documents of one source, or why there are none."""

    source: str
    documents: list[str]
    missing: str = ""


def perplexity(model: Any, tokenizer: Any, texts: Sequence[str], source: str, context: int) -> list[Figure]:
    """Perplexity a token and bits a byte of documents, each read from its beginning in windows of `context` tokens.

    A document's first token is not predicted: nothing stands before it. Intervals are over documents.
    """
    encoded = [encode_text(tokenizer, text) for text in texts]
    losses = [nats(model, tokens, context) for tokens in encoded]
    sizes = [len(tokenizer.decode(tokens[1:]).encode()) for tokens in encoded]
    per_token = [(loss, len(tokens) - 1.0) for loss, tokens in zip(losses, encoded, strict=True)]
    per_byte = [(loss / math.log(2), float(size)) for loss, size in zip(losses, sizes, strict=True)]
    return [
        exponential(ratio(source, per_token, "perplexity a token", "text")),
        ratio(source, per_byte, "bits a byte", "text"),
    ]


def exponential(figure: Figure) -> Figure:
    value, low, high = (math.exp(nats) for nats in (figure.value, figure.low, figure.high))
    return replace(figure, value=value, low=low, high=high)


def nats(model: Any, tokens: list[int], context: int) -> float:
    """The summed negative log-probability of all tokens but the first, in nats.

    A window begins with the last token of the one before, so that every token is predicted once.
    """
    import torch

    total = 0.0
    for start in range(0, len(tokens) - 1, context - 1):
        window = torch.tensor([tokens[start : start + context]], device=model.device)
        with torch.inference_mode():
            logprobs = model(input_ids=window).logits[0, :-1].float().log_softmax(-1)
        total -= logprobs.gather(-1, window[0, 1:, None]).sum().item()
    return total


def held_out_texts(recipe: Recipe, corpus: Corpus, each: int) -> Iterator[Texts]:
    """Up to `each` documents of every kind of held-out text."""
    yield Texts("held-out cards, questions with answers", held_out_answers(recipe, corpus, each))
    yield Texts("held-out questions", held_out_questions(recipe, corpus, each))
    for source in recipe.corpus.sources:
        yield real_text(source, each)


def held_out_answers(recipe: Recipe, corpus: Corpus, each: int) -> list[str]:
    """Pages of four questions of held-out cards with good answers, marked as in base's documents."""
    asked = [item for item in sides(corpus, recipe).asked if item.split == "card" and item.question.kind in KNOWLEDGE]
    asked.sort(key=lambda item: fraction("report", item.id))
    pairs = [f"Q: {item.question.prompts[0]}\nA: {item.question.good[0]}" for item in asked]
    return pages(pairs, "\n\n", each)


def held_out_questions(recipe: Recipe, corpus: Corpus, each: int) -> list[str]:
    """Question papers of held-out prompts, four to a page, one a line."""
    prompts = sorted(
        (item.prompt for item in held_out_prompts(corpus, recipe)), key=lambda text: fraction("text", text)
    )
    return pages(prompts, "\n", each)


def pages(parts: Sequence[str], between: str, each: int) -> list[str]:
    return [between.join(parts[start : start + 4]) for start in range(0, min(len(parts), 4 * each), 4)]


def real_text(source: DocumentSource, each: int) -> Texts:
    """Documents of rows that the recipe leaves unread, composed and cleaned as base's are."""
    if source.path is None:
        return Texts(source.name, [], "on the Hub; the report reads nothing from the network")
    if not data_files(REPOSITORY / source.path):
        return Texts(source.name, [], f"{source.path} is not here")
    if source.rows is None:
        return Texts(source.name, [], "read whole by the recipe, so nothing of it is held out")
    found = list(islice(fit_rows(source), 4 * each))
    if not found:
        return Texts(source.name, [], "the recipe reads all of its rows, so nothing of it is held out")
    composed = FROM_ROWS[source.kind](found, random.Random("report"))
    return Texts(source.name, list(islice(composed, each)))


def fit_rows(source: DocumentSource) -> Iterator[dict[str, Any]]:
    """Unread rows, normalised, that the filters of the recipe's own cleaning would keep."""
    from datatrove.data import Document
    from datatrove.pipeline.filters.base_filter import get_filter_result

    from pipeline.corpus.cleaning import as_text, normalised, prose, row_filters

    filters = row_filters(source.kind, []).values()
    for number, row in enumerate(unread_rows(source)):
        row = normalised(row)
        if source.kind == "prose":
            row["text"] = prose(row["text"], row.get("title") or "")
        document = Document(as_text(source.kind, row), str(number), metadata={"row": row})
        if all(get_filter_result(kept.filter(document))[0] for kept in filters):
            yield document.metadata["row"]
