"""The models of a family, ready to answer and to score."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipeline.chat_format import encode_exchange, encode_prompt, encode_text, stop_tokens
from pipeline.checkpoint import ANSWERING, Checkpoint
from pipeline.errors import InputError
from pipeline.inference.decoding import Completion, Decoding, complete, decode
from pipeline.inference.together import Together, Waiting, can_share

if TYPE_CHECKING:
    import torch

LONGEST_PROMPT = 2_000  # characters
LONGEST_ANSWER = 20_000  # characters of an answer to score, many times what a context holds
SHORTEST_ROOM = 16  # tokens that a prompt must leave for the answer
UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what the first bytes of a longer character decode to


@dataclass(frozen=True)
class Answer:
    """A model's text so far, its length in tokens, and whether the model ended it by itself.

    `place` is the place in the queue, 1 for the next, of an answer whose turn has not come.
    """

    text: str
    tokens: int
    stopped: bool
    place: int = 0


@dataclass(frozen=True)
class StageModel:
    """A checkpoint that answers: base goes on with the prompt as it stands, the others see the chat format.

    With `chat_format` base sees it, too: control tokens that mean nothing to it yet.
    `together` decodes for several threads at once; without it, each stream decodes in its own thread.
    """

    stage: str
    model: Any
    tokenizer: Any
    chat_format: bool = False
    together: Together | None = None

    def shared(self) -> "StageModel":
        """The same, for many threads that stream at the same time, if the model can do that."""
        return replace(self, together=Together(self.model)) if can_share(self.model) else self

    def encode(self, prompt: str) -> list[int]:
        """Token ids of a prompt. Raises InputError when it is empty or leaves no room for an answer."""
        prompt = checked(prompt)
        as_it_stands = self.stage == "base" and not self.chat_format
        tokens = (encode_text if as_it_stands else encode_prompt)(self.tokenizer, prompt)
        context = context_length(self.model)
        if len(tokens) > context - SHORTEST_ROOM:
            raise InputError(
                f"the prompt has {len(tokens)} tokens, but at most {context - SHORTEST_ROOM} leave room for an "
                f"answer in the model's context of {context}; shorten it"
            )
        return tokens

    def stream(self, prompt: str, decoding: Decoding) -> Iterator[Answer]:
        """The answer as it grows, token by token; the last one is the whole answer.

        Text is held back while it ends inside a character of several bytes. Where many stream together,
        the first ones may tell the place in the queue.
        """
        stop = stop_tokens(self.tokenizer)
        tokens: list[int] = []
        text = shown = ""
        for token in self.steps(prompt, decoding, stop):
            if isinstance(token, Waiting):
                yield Answer("", 0, stopped=False, place=token.place)
                continue
            if token in stop:
                yield Answer(text, len(tokens), stopped=True)
                return
            tokens.append(token)
            text = self.text(tokens)
            shown = shown if text.endswith(UNFINISHED) else text
            yield Answer(shown, len(tokens), stopped=False)
        if shown != text:
            yield Answer(text, len(tokens), stopped=False)

    def steps(self, prompt: str, decoding: Decoding, stop: list[int]) -> Iterator[int | Waiting]:
        tokens = self.encode(prompt)
        if self.together is not None:
            yield from self.together.stream(tokens, decoding, stop)
            return
        for [token] in decode(self.model, [tokens], decoding, stop):
            assert token is not None
            yield token

    def answers(self, prompts: Sequence[str], decoding: Decoding) -> list[Answer]:
        """The whole answers to many prompts, sampled in batches."""
        encoded = [self.encode(prompt) for prompt in prompts]
        completions = complete(self.model, encoded, decoding, stop_tokens(self.tokenizer))
        return [self.answer(completion) for completion in completions]

    def answer(self, completion: Completion) -> Answer:
        return Answer(self.text(completion.tokens), len(completion.tokens), completion.stopped)

    def text(self, tokens: list[int]) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=True)


@dataclass(frozen=True)
class RewardModel:
    """The checkpoint that scores: one number for a prompt with its answer; higher is preferred."""

    model: Any
    tokenizer: Any
    offset: float = 0.0

    def scores(
        self, exchanges: Sequence[tuple[str, str]], finished: Sequence[bool] | None = None, batch_size: int = 64
    ) -> list[float]:
        """Rewards of (prompt, answer) pairs, in their order, less the family's offset: SFT's mean is 0.

        An answer that is not `finished` (all are, if that is not said) is read without the end token,
        as in the rankings, so that being cut at the limit can cost it. An exchange that is longer than the
        model's context loses the beginning of the prompt. Raises InputError for an empty or too long prompt, and
        for a too long answer.
        """
        whole = [True] * len(exchanges) if finished is None else finished
        encoded = [self.encode(prompt, answer, end) for (prompt, answer), end in zip(exchanges, whole, strict=True)]
        # Similar lengths together: little padding.
        order = sorted(range(len(encoded)), key=lambda index: len(encoded[index]))
        scores: dict[int, float] = {}
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            scores.update(zip(batch, self.batch_scores([encoded[index] for index in batch]), strict=True))
        return [scores[index] - self.offset for index in range(len(encoded))]

    def encode(self, prompt: str, answer: str, finished: bool = True) -> list[int]:
        tokens = encode_exchange(self.tokenizer, checked(prompt), readable(answer), finished)
        excess = max(0, len(tokens) - context_length(self.model))
        # The first token says that a user is speaking: it stays.
        return tokens[:1] + tokens[1 + excess :]

    def batch_scores(self, batch: list[list[int]]) -> list[float]:
        import torch

        longest = max(len(tokens) for tokens in batch)
        padding = self.tokenizer.pad_token_id
        device = self.model.device
        tokens = torch.tensor([row + [padding] * (longest - len(row)) for row in batch], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in batch], device=device)
        with torch.inference_mode():
            return self.model(input_ids=tokens, attention_mask=mask).logits[:, 0].tolist()


def load_stage(checkpoint: Checkpoint) -> StageModel:
    """Load a verified checkpoint to answer with. Raises InputError if its stage does not answer.

    On a GPU it runs in bfloat16. On a CPU it runs in float32: for models of this size that is as fast
    (attention over a cache is slow in bfloat16 there), and a row's tokens do not change with the rounding
    that another batch brings.
    """
    import torch
    from transformers import AutoModelForCausalLM

    if checkpoint.stage not in ANSWERING:
        raise InputError(f"stage {checkpoint.stage!r} does not answer; use one of {', '.join(ANSWERING)}")
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    model, tokenizer = load(AutoModelForCausalLM, checkpoint, dtype)
    return StageModel(checkpoint.stage, model, tokenizer)


def load_reward(checkpoint: Checkpoint) -> RewardModel:
    """Load a verified checkpoint to score with, in float32: bfloat16 would round the scores to three digits."""
    import torch
    from transformers import AutoModelForSequenceClassification

    if checkpoint.stage != "reward":
        raise InputError(f"stage {checkpoint.stage!r} gives no scores; use the reward stage")
    model, tokenizer = load(AutoModelForSequenceClassification, checkpoint, torch.float32)
    return RewardModel(model, tokenizer, checkpoint.figures.get("offset", 0.0))


def load(kind: Any, checkpoint: Checkpoint, dtype: "torch.dtype") -> tuple[Any, Any]:
    """A checkpoint's model, ready on the device, and its tokenizer; nothing but safetensors, nothing from the Hub."""
    import torch
    from transformers import AutoTokenizer

    model = kind.from_pretrained(checkpoint.path, dtype=dtype, use_safetensors=True, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.path, local_files_only=True)
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer


def context_length(model: Any) -> int:
    """Tokens that the model can see at once."""
    return model.config.get_text_config().max_position_embeddings


def checked(prompt: str) -> str:
    """A prompt that can be read. Raises InputError when it is empty or too long."""
    if not prompt.strip():
        raise InputError("the prompt is empty; write a question or a sentence")
    if len(prompt) > LONGEST_PROMPT:
        raise InputError(f"the prompt has {len(prompt):,} characters; at most {LONGEST_PROMPT:,} are read, shorten it")
    return plain(prompt)


def readable(answer: str) -> str:
    """An answer that can be scored. Raises InputError when it is too long."""
    if len(answer) > LONGEST_ANSWER:
        raise InputError(f"the answer has {len(answer):,} characters; at most {LONGEST_ANSWER:,} are read, shorten it")
    return plain(answer)


def plain(text: str) -> str:
    """Text without lone surrogates, which no encoding can hold: each becomes a question mark."""
    return text.encode("utf-8", errors="replace").decode("utf-8")
