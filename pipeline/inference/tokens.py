"""What every stage would say next at each position of an answer, and what it would put into a blank.

Everything about an answer comes from one forward pass of each stage over all of it.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from pipeline.chat_format import ASSISTANT, END, END_OF_DOCUMENT, PADDING, USER, encode_text
from pipeline.errors import InputError
from pipeline.inference.decoding import Decoding, decode
from pipeline.inference.models import UNFINISHED, StageModel, checked

if TYPE_CHECKING:
    import torch

TOP = 10
CANDIDATES = 20  # words tried in a blank
LONGEST_WORD = 6  # tokens of a word in a blank
BLANK = re.compile("_{3,}")
CONTROL_NAMES = {
    END_OF_DOCUMENT: "end of document",
    USER: "start of question",
    ASSISTANT: "start of answer",
    END: "end of answer",
    PADDING: "padding",
}

Category = Literal["unshifted", "marginal", "shifted"]


@dataclass(frozen=True)
class Token:
    """A token to read: its text, the plain name of a control token, or the bytes of a part of a character."""

    id: int
    text: str
    kind: Literal["text", "control", "bytes"] = "text"


@dataclass(frozen=True)
class Candidate:
    token: Token
    logprob: float


@dataclass(frozen=True)
class Prediction:
    """One stage's next-token distribution at one position, as far as it is kept.

    `logprob` and `rank` (1 is the likeliest) are those of the token that the answer really has there;
    `top` holds the likeliest tokens in falling order. Logprobs are natural logarithms.
    """

    logprob: float
    rank: int
    top: list[Candidate]


@dataclass(frozen=True)
class Reading:
    """An answer of one stage, read by all stages: `predictions[stage][position]`."""

    stage: str
    prompt: str
    tokens: list[Token]
    predictions: dict[str, list[Prediction]]

    @property
    def before(self) -> str | None:
        """The stage that this answer's stage was trained from; None for the first."""
        stages = list(self.predictions)
        return stages[stages.index(self.stage) - 1] if self.stage != stages[0] else None

    def category(self, position: int) -> Category | None:
        """How much the stage before is surprised, as in AlignTDS (Lin et al. 2023, arXiv:2312.01552).

        `unshifted` is its first choice, `marginal` its second or third, `shifted` anything else.
        """
        if self.before is None:
            return None
        rank = self.predictions[self.before][position].rank
        return "unshifted" if rank == 1 else "marginal" if rank <= 3 else "shifted"

    def log_ratio(self, position: int) -> float | None:
        """log p of the answer's stage less log p of the stage before, for the token that stands there."""
        if self.before is None:
            return None
        own, before = (self.predictions[stage][position].logprob for stage in (self.stage, self.before))
        return own - before


def answer_tokens(model: StageModel, prompt: str, decoding: Decoding) -> Iterator[int]:
    """The ids of a stage's answer as it is written, with the token that ends it."""
    for [token] in decode(model.model, [model.encode(prompt)], decoding, model.stop):
        assert token is not None
        yield token


def room(models: Mapping[str, StageModel], prompt: str) -> int:
    """Tokens of an answer that every stage can read after the prompt. Raises InputError as `encode` does."""
    return min(model.context - len(model.encode(prompt)) for model in models.values())


def read(models: Mapping[str, StageModel], stage: str, prompt: str, answer: Sequence[int]) -> Reading:
    """Let every stage read an answer of `stage` and say at each position what it would have said.

    Each has the prompt in its own format before it: base the raw text, the others the chat format.
    `models` are in the order of training.
    """
    tokens = [token(models[stage].tokenizer, number) for number in answer]
    predictions = {name: predict(model, model.encode(prompt), answer) for name, model in models.items()}
    return Reading(stage, checked(prompt), tokens, predictions)


def predict(model: StageModel, prompt: Sequence[int], answer: Sequence[int]) -> list[Prediction]:
    """The model's predictions at every position of an answer, from one forward pass."""
    import torch

    logprobs = next_logprobs(model.model, prompt, [answer])[0]
    taken = logprobs.gather(-1, torch.tensor(answer, device=logprobs.device)[:, None])
    ranks = (logprobs > taken).sum(-1) + 1
    best, ids = logprobs.topk(min(TOP, logprobs.shape[-1]))
    return [
        Prediction(
            logprob, rank, [Candidate(token(model.tokenizer, id), value) for id, value in zip(*top, strict=True)]
        )
        for logprob, rank, *top in zip(taken[:, 0].tolist(), ranks.tolist(), ids.tolist(), best.tolist(), strict=True)
    ]


def next_logprobs(model: Any, prefix: Sequence[int], rows: Sequence[Sequence[int]]) -> "torch.Tensor":
    """Log-probabilities of every token at each position of `rows`, which all follow the same prefix.

    [rows, longest row, vocabulary], float32; what stands beyond the end of a shorter row means nothing.
    """
    import torch

    longest = max(len(row) for row in rows)
    # Padding on the right needs no mask: no token sees what comes after it. The last token predicts nothing here.
    inputs = torch.tensor([[*prefix, *row, *[0] * (longest - len(row))][:-1] for row in rows], device=model.device)
    with torch.inference_mode():
        return model(input_ids=inputs, logits_to_keep=longest).logits.float().log_softmax(-1)


def token(tokenizer: Any, number: int) -> Token:
    """A token as people can read it."""
    piece = tokenizer.convert_ids_to_tokens(number)
    if number in control_ids(tokenizer):
        return Token(number, CONTROL_NAMES.get(piece, piece), "control")
    text = tokenizer.decode([number])
    if UNFINISHED in text:
        return Token(number, byte_names(piece), "bytes")
    return Token(number, text)


@lru_cache
def control_ids(tokenizer: Any) -> frozenset[int]:
    return frozenset(tokenizer.all_special_ids)


@lru_cache
def vocabulary(tokenizer: Any) -> list[Token]:
    """All tokens. Kept: published models have a hundred thousand and more."""
    return [token(tokenizer, number) for number in range(len(tokenizer))]


def byte_names(piece: str) -> str:
    """The bytes of a byte-level token in hexadecimal: in the vocabulary each is written as one character."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    values = {character: value for value, character in bytes_to_unicode().items()}
    return " ".join(f"{values[character]:02X}" for character in piece)


@dataclass(frozen=True)
class Filling:
    """A word for a blank.

    `alone` is its probability after the text on the left. `fitting` also counts how likely the text on
    the right then is: p(word | left) p(right | left, word), as a share among the candidates.
    """

    word: str
    alone: float
    fitting: float


@dataclass(frozen=True)
class Gap:
    """A text with one blank. If a space stands before it, the word begins with it: tokens hold the space before."""

    left: str
    right: str
    spaced: bool


def find_blank(text: str) -> Gap:
    """Raises InputError unless exactly one blank of three or more underscores stands after some text."""
    if not text.strip():
        raise InputError("the sentence is empty; write one with three underscores, ___, where a word is missing")
    parts = BLANK.split(checked(text))
    if len(parts) == 1:
        raise InputError("there is no blank; write three underscores, ___, where a word is missing")
    if len(parts) > 2:
        raise InputError("there is more than one blank; leave one ___ and write the other words")
    left, right = parts
    if not left.strip():
        raise InputError("nothing stands before the blank, and the models read from left to right; begin with a word")
    return Gap(left.rstrip(" "), right, left.endswith(" "))


def fill(model: StageModel, text: str, count: int = CANDIDATES) -> list[Filling]:
    """The stage's words for the blank `___` of a text, the best fitting first.

    Every stage continues raw text here. Its `count` likeliest beginnings of a word are completed greedily,
    then each word is scored together with what follows the blank. Raises InputError for a text without a
    usable blank, or one that is longer than the model's context.
    """
    gap = find_blank(text)
    left, right = model.text_tokens(gap.left), encode_text(model.tokenizer, gap.right)
    most = model.context - LONGEST_WORD
    if len(left) + len(right) > most:
        raise InputError(f"the sentence has {len(left) + len(right)} tokens; at most {most} fit, shorten it")
    words = likely_words(model, left, gap.spaced, count)
    scores: dict[str, tuple[float, float]] = {}
    rows = [[*word, *right] for word in words]
    for word, row, logprobs in zip(words, rows, next_logprobs(model.model, left, rows), strict=True):
        steps = logprobs[range(len(row)), row].double()
        alone, fitting = steps[: len(word)].sum().exp().item(), steps.sum().item()
        name = model.tokenizer.decode(word).strip()
        # Two ways to cut a word into tokens are one candidate, with the sum of their probabilities.
        earlier = scores.get(name, (0.0, -math.inf))
        scores[name] = (earlier[0] + alone, log_sum(earlier[1], fitting))
    whole = log_sum(*(fitting for _, fitting in scores.values()))
    fillings = [Filling(word, alone, math.exp(fitting - whole)) for word, (alone, fitting) in scores.items()]
    return sorted(fillings, key=lambda filling: -filling.fitting)


def likely_words(model: StageModel, left: Sequence[int], spaced: bool, count: int) -> list[list[int]]:
    """The tokens of the `count` likeliest words after the text on the left: likely beginnings, completed greedily."""
    tokens = vocabulary(model.tokenizer)
    inner = {token.id for token in tokens if token.kind == "bytes" or (token.kind == "text" and token.text.isalnum())}
    begins = [token.id for token in tokens if token.kind == "text" and begins_word(token.text, spaced)]
    first = next_logprobs(model.model, left, [[0]])[0, 0].tolist()
    words = [[number] for number in sorted(begins, key=lambda number: -first[number])[:count]]
    growing = words
    for length in range(1, LONGEST_WORD):
        following = next_logprobs(model.model, left, [[*word, 0] for word in growing])[:, length].argmax(-1).tolist()
        longer = [(word, number) for word, number in zip(growing, following, strict=True) if number in inner]
        for word, number in longer:
            word.append(number)
        growing = [word for word, _ in longer]
        if not growing:
            break
    for word in words:
        # The greedy end can fall inside a character of several bytes.
        while UNFINISHED in model.tokenizer.decode(word):
            word.pop()
    return [word for word in words if model.tokenizer.decode(word).strip()]


def begins_word(text: str, spaced: bool) -> bool:
    """Whether a word of letters and digits begins with this token; a space can also be a token of its own."""
    return (text.startswith(" ") and (text == " " or text[1:].isalnum())) if spaced else text.isalnum()


def log_sum(*values: float) -> float:
    """log(sum(exp(values))), safe for very small probabilities."""
    highest = max(values)
    return highest + math.log(sum(math.exp(value - highest) for value in values))
