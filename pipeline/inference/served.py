"""A stage that answers on a server which speaks OpenAI's interface: in a streaming column like any other."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
from huggingface_hub import InferenceClient, get_session
from huggingface_hub.errors import HfHubHTTPError, InferenceTimeoutError, OfflineModeIsEnabled, TextGenerationError
from huggingface_hub.utils import hf_raise_for_status

from pipeline.errors import InputError
from pipeline.inference.decoding import Decoding
from pipeline.inference.models import Answer, checked
from pipeline.published import Place

# Where a server has no token, none may be sent: without this one the client sends that of the Hub.
NO_TOKEN = "none"
ASSUMED_CONTEXT = 4096  # tokens; what is too long for it, the server says itself


@dataclass(frozen=True)
class Piece:
    """A part of an answer; the last ones bring why it ended, and its length in tokens if the server counts them."""

    text: str
    ended: str | None = None
    tokens: int | None = None


@dataclass(frozen=True)
class ServedStage:
    """Base goes on with the prompt as raw text, the others are asked in a chat; with `chat_format` base is, too."""

    stage: str
    place: Place
    token: str = field(repr=False)
    chat_format: bool = False
    together: None = None

    @property
    def context(self) -> int:
        return ASSUMED_CONTEXT

    @property
    def chats(self) -> bool:
        return self.stage != "base" or self.chat_format

    def shared(self) -> "ServedStage":
        return self

    def given(self, prompt: str) -> str:
        """What the model is given to go on from; the chat format of a server is its own affair."""
        return prompt

    def check(self, prompt: str) -> None:
        """Raise InputError for an empty or too long prompt."""
        checked(prompt)

    def stream(self, prompt: str, decoding: Decoding) -> Iterator[Answer]:
        """The answer as it comes; closing the iterator closes the connection.

        Raises InputError for what the server refuses, and when it is silent for longer than it may be.
        """
        text, tokens, ended = "", 0, None
        with self.clear_errors():
            for piece in self.chat(checked(prompt), decoding) if self.chats else self.going_on(prompt, decoding):
                text += piece.text
                tokens = piece.tokens or tokens + bool(piece.text)
                ended = piece.ended or ended
                yield Answer(text, tokens, stopped=ended not in (None, "length"))

    def answers(self, prompts: Sequence[str], decoding: Decoding) -> list[Answer]:
        """The whole answers to many prompts, one after the other."""
        nothing = Answer("", 0, stopped=False)
        return [[nothing, *self.stream(prompt, decoding)][-1] for prompt in prompts]

    def chat(self, prompt: str, decoding: Decoding) -> Iterator[Piece]:
        address = f"{self.place.endpoint}/chat/completions"
        with InferenceClient(base_url=address, api_key=self.token, timeout=self.place.seconds) as client:
            messages = [{"role": "user", "content": prompt}]
            for chunk in client.chat_completion(messages, **self.settings(decoding)):
                tokens = chunk.usage.completion_tokens if chunk.usage else None
                if chunk.choices:
                    [choice] = chunk.choices
                    yield Piece(choice.delta.content or "", choice.finish_reason, tokens)
                else:
                    yield Piece("", tokens=tokens)

    def going_on(self, prompt: str, decoding: Decoding) -> Iterator[Piece]:
        """Raw text, which the client of the Hub asks for in another interface only."""
        request = {"prompt": checked(prompt), **self.settings(decoding)}
        headers = {"Authorization": f"Bearer {self.token}"}
        address, seconds = f"{self.place.endpoint}/completions", self.place.seconds
        with get_session().stream("POST", address, json=request, headers=headers, timeout=seconds) as response:
            hf_raise_for_status(response)
            for line in response.iter_lines():
                if line.startswith("data:") and (data := line.removeprefix("data:").strip()) != "[DONE]":
                    yield piece_of(json.loads(data))

    def settings(self, decoding: Decoding) -> dict[str, Any]:
        return {
            "model": self.place.model,
            "max_tokens": decoding.max_new_tokens,
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "seed": decoding.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    @contextmanager
    def clear_errors(self) -> Iterator[None]:
        """Turn what goes wrong between here and the server into InputError."""
        host = self.place.host
        try:
            yield
        except (InferenceTimeoutError, httpx2.TimeoutException) as error:
            raise InputError(f"{host} said nothing for {self.place.seconds:g} s; try again later") from error
        except HfHubHTTPError as error:
            raise InputError(f"{host} refuses ({error.response.status_code}): {self.advice(error)}") from error
        except TextGenerationError as error:
            said = error.args[0]
            raise InputError(f"{host} broke off: {said['message'] if isinstance(said, dict) else said}") from error
        except OfflineModeIsEnabled as error:
            raise InputError(f"{host} is not asked while HF_HUB_OFFLINE is set") from error
        except httpx2.TransportError as error:
            raise InputError(f"{host} cannot be reached, or broke off: {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{host} does not answer as OpenAI's interface does") from error

    def advice(self, error: HfHubHTTPError) -> str:
        return {
            401: "it wants a token: name the variable that holds one with 'token' in the family file",
            403: "the token may not do this",
            404: f"it serves no {self.place.model}, or not {'as a chat' if self.chats else 'as raw text'}",
            429: "too many ask at once; try again in a few minutes",
        }.get(error.response.status_code, error.server_message or "try again later")


def piece_of(event: dict[str, Any]) -> Piece:
    """A part of raw text from what the server sent. Raises TextGenerationError if that is an error."""
    if error := event.get("error"):
        raise TextGenerationError(error)
    tokens = (event.get("usage") or {}).get("completion_tokens")
    if not event["choices"]:
        return Piece("", tokens=tokens)
    [choice] = event["choices"]
    return Piece(choice["text"], choice.get("finish_reason"), tokens)


def reach(place: Place, stage: str) -> ServedStage:
    """The stage at a server. Raises InputError if the variable that its token is in is not set."""
    token = os.environ.get(place.token, "") if place.token else NO_TOKEN
    if not token:
        raise InputError(f"{place.host} wants a token: set the environment variable {place.token}")
    return ServedStage(stage, place, token)
