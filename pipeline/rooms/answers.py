"""What the people in a room are asked to rank: a few different answers of SFT to one prompt."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.chat_format import stop_tokens
from pipeline.corpus.splits import same_text
from pipeline.errors import InputError
from pipeline.inference.best_of import SEEDS_APART
from pipeline.inference.decoding import Decoding, decode, ended
from pipeline.inference.models import RewardModel, StageModel

# Drawn for each answer that is wanted: a small model often says the same twice.
DRAWN = 3


@dataclass(frozen=True)
class Candidate:
    """An answer to be ranked, and the seed that it was drawn with."""

    text: str
    stopped: bool
    seed: int


def candidates(model: StageModel, prompt: str, count: int, decoding: Decoding) -> list[Candidate]:
    """At most `count` different answers to a prompt, the same ones whenever the decoding is the same.

    Answers that differ in case or punctuation only count as one. Raises InputError for a prompt that cannot be
    answered, and if all answers are alike.
    """
    stop = stop_tokens(model.tokenizer)
    seeds = [SEEDS_APART * decoding.seed + number for number in range(DRAWN * count)]
    written: list[list[int]] = [[] for _ in seeds]
    for news in decode(model.model, [model.encode(prompt)] * len(seeds), decoding, stop, seeds):
        for tokens, token in zip(written, news, strict=True):
            if token is not None:
                tokens.append(token)
    found: dict[str, Candidate] = {}
    for seed, tokens in zip(seeds, written, strict=True):
        completion = ended(tokens, stop)
        text = model.text(completion.tokens).strip()
        if text:
            found.setdefault(same_text(text), Candidate(text, completion.stopped, seed))
    if len(found) < 2:
        raise InputError("all answers to this prompt are alike; try another prompt, or another seed")
    return list(found.values())[:count]


def least_sure(
    model: StageModel, reward: RewardModel, prompts: Sequence[str], count: int, decoding: Decoding
) -> tuple[str, list[Candidate]]:
    """The prompt whose answers the reward model tells apart least, with its answers.

    A vote on it says most that the reward model does not know: uncertainty sampling (Lewis and Gale 1994,
    arXiv:cmp-lg/9407020). Raises InputError if no prompt has two different answers.
    """
    found = []
    for prompt in prompts:
        try:
            answers = candidates(model, prompt, count, decoding)
        except InputError:
            continue  # nothing to rank there
        scores = reward.scores([(prompt, answer.text) for answer in answers], [answer.stopped for answer in answers])
        found.append((max(scores) - min(scores), prompt, answers))
    if not found:
        raise InputError("none of the prompts has two different answers; type a prompt of your own")
    _, prompt, answers = min(found, key=lambda each: each[:2])
    return prompt, answers
