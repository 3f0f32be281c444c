"""The models of a family, ready to answer and to score."""

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.chat_format import (
    ASSISTANT,
    END,
    USER,
    decode_answer,
    encode_exchange,
    encode_prompt,
    encode_text,
    stop_tokens,
)
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

    def on_gpu(self) -> "StageModel":
        """The same on a GPU, in the same numbers, for one thread. This one stays where it is."""
        return replace(self, model=copy.deepcopy(self.model).to("cuda"), together=None)

    @property
    def context(self) -> int:
        """Tokens that prompt and answer may have together."""
        return context_length(self.model)

    @property
    def stop(self) -> list[int]:
        """Tokens with which the model ends its text by itself."""
        return stop_tokens(self.tokenizer)

    @property
    def chats(self) -> bool:
        """Whether it sees the prompt in the chat format."""
        return self.stage != "base" or self.chat_format

    def given(self, prompt: str) -> str:
        """What the model is given to go on from, in words."""
        return f"{USER} {prompt}{END}{ASSISTANT}" if self.chats else prompt

    def check(self, prompt: str) -> None:
        """Raise InputError for a prompt that cannot be answered."""
        self.encode(prompt)

    def encode(self, prompt: str) -> list[int]:
        """Token ids of a prompt. Raises InputError when it is empty or leaves no room for an answer."""
        prompt = checked(prompt)
        tokens = self.chat_tokens(prompt) if self.chats else self.text_tokens(prompt)
        context = self.context
        if len(tokens) > context - SHORTEST_ROOM:
            raise InputError(
                f"the prompt has {len(tokens)} tokens, but at most {context - SHORTEST_ROOM} leave room for an "
                f"answer in the model's context of {context}; shorten it"
            )
        return tokens

    def chat_tokens(self, prompt: str) -> list[int]:
        return encode_prompt(self.tokenizer, prompt)

    def text_tokens(self, text: str) -> list[int]:
        return encode_text(self.tokenizer, text)

    def stream(self, prompt: str, decoding: Decoding) -> Iterator[Answer]:
        """The answer as it grows, token by token; the last one is the whole answer.

        Text is held back while it ends inside a character of several bytes. Where many stream together,
        the first ones may tell the place in the queue.
        """
        stop = self.stop
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
        completions = complete(self.model, encoded, decoding, self.stop)
        return [self.answer(completion) for completion in completions]

    def answer(self, completion: Completion) -> Answer:
        return Answer(self.text(completion.tokens), len(completion.tokens), completion.stopped)

    def text(self, tokens: list[int]) -> str:
        """The text of an answer, or of what goes on with the prompt, with the space before it."""
        if self.chats:
            return decode_answer(self.tokenizer, tokens)
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
        tokens = self.exchange(checked(prompt), readable(answer), finished)
        excess = max(0, len(tokens) - context_length(self.model))
        # The first token says that a user is speaking: it stays.
        return tokens[:1] + tokens[1 + excess :]

    def exchange(self, prompt: str, answer: str, finished: bool) -> list[int]:
        """Token ids of a prompt with an answer, however many they are."""
        return encode_exchange(self.tokenizer, prompt, answer, finished)

    def batch_scores(self, batch: list[list[int]]) -> list[float]:
        import torch

        longest = max(len(tokens) for tokens in batch)
        padding = self.tokenizer.pad_token_id
        device = self.model.device
        tokens = torch.tensor([row + [padding] * (longest - len(row)) for row in batch], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in batch], device=device)
        with torch.inference_mode():
            return self.model(input_ids=tokens, attention_mask=mask).logits[:, 0].tolist()


def side_by_side(
    models: Mapping[str, StageModel], prompt: str, decoding: Decoding
) -> Iterator[tuple[str, Answer | None]]:
    """Several models' answers as they grow, a step of each in turn: (stage, answer), and at its end (stage, None).

    Raises InputError for a prompt that one of them cannot read.
    """
    going = {stage: model.stream(prompt, decoding) for stage, model in models.items()}
    while going:
        for stage, answers in list(going.items()):
            answer = next(answers, None)
            if answer is None:
                del going[stage]
            yield stage, answer


def device() -> str:
    """Where models run: on a GPU that this process may keep, or on the processor."""
    import torch

    return "cuda" if torch.cuda.is_available() and not gpu_is_lent() else "cpu"


def gpu_is_lent() -> bool:
    """Whether this is a ZeroGPU Space: torch finds a GPU, but there is one only for the time of some calls."""
    return bool(os.environ.get("SPACES_ZERO_GPU"))


def load_stage(checkpoint: Checkpoint) -> StageModel:
    """Load a verified checkpoint to answer with. Raises InputError if its stage does not answer."""
    from transformers import AutoModelForCausalLM

    if checkpoint.stage not in ANSWERING:
        raise InputError(f"stage {checkpoint.stage!r} does not answer; use one of {', '.join(ANSWERING)}")
    model, tokenizer = load(AutoModelForCausalLM, checkpoint.path, answering_dtype())
    return StageModel(checkpoint.stage, model, tokenizer)


def load_reward(checkpoint: Checkpoint) -> RewardModel:
    """Load a verified checkpoint to score with, in float32: bfloat16 would round the scores to three digits."""
    import torch
    from transformers import AutoModelForSequenceClassification

    if checkpoint.stage != "reward":
        raise InputError(f"stage {checkpoint.stage!r} gives no scores; use the reward stage")
    model, tokenizer = load(AutoModelForSequenceClassification, checkpoint.path, torch.float32)
    return RewardModel(model, tokenizer, checkpoint.figures.get("offset", 0.0))


def answering_dtype() -> "torch.dtype":
    """On a GPU models answer in bfloat16, on a CPU in float32.

    For small models that is as fast there (attention over a cache is slow in bfloat16), and a row's tokens do not
    change with the rounding that another batch brings.
    """
    import torch

    return torch.bfloat16 if device() == "cuda" else torch.float32


def load(kind: Any, folder: Path, dtype: "torch.dtype", **how: Any) -> tuple[Any, Any]:
    """A folder's model, ready on the device, and its tokenizer.

    Nothing but safetensors, no code that came with the model, and nothing from the Hub. Raises InputError if weights
    of this kind of model are missing, which would be random numbers.
    """
    from transformers import AutoTokenizer

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    model, told = kind.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, output_loading_info=True, **local, **how
    )
    if told["missing_keys"]:
        raise InputError(f"{folder} has no weights {sorted(told['missing_keys'])[0]}: it is another kind of model")
    tokenizer = AutoTokenizer.from_pretrained(folder, **local)
    return model.eval().to(device()), tokenizer


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
