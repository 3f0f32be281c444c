"""What programs can call: the page's work as named API endpoints, which are the tools of its MCP server too.

Gradio reads the docstrings: what stands before "Args:" describes a tool, and each argument has one line.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import gradio as gr

from pipeline.errors import InputError
from pipeline.inference.decoding import Decoding
from ui.answering import USUAL_TEMPERATURE, LoadedFamily, Request, text, told
from ui.tokens import tokens_call


def add_calls(family: LoadedFamily) -> None:
    """Add the endpoints to the current `gr.Blocks`, each under its function's name."""
    for call in (compare_call(family), score_call(family), tokens_call(family)):
        gr.api(answered(call), api_name=call.__name__)


def compare_call(family: LoadedFamily) -> Callable[..., dict[str, dict[str, Any]]]:
    def compare(
        prompt: str,
        seed: int = Decoding.seed,
        temperature: float = USUAL_TEMPERATURE,
        top_p: float = Decoding.top_p,
        max_new_tokens: int = Decoding.max_new_tokens,
        chat_format: bool = False,
    ) -> dict[str, dict[str, Any]]:
        """Ask every training stage of one small language model (base, SFT, RLHF) the same prompt.

        Answers come from small research models: often wrong, sometimes unpleasant, never advice.

        Args:
            prompt: A question or the beginning of a text, for all stages alike.
            seed: Whole number. The same seed and settings give the same answers.
            temperature: 0 always takes the likeliest token; higher values draw more freely.
            top_p: Above 0, at most 1. Draw only from the likeliest tokens that together have this probability.
            max_new_tokens: Tokens of an answer, at most. An answer that comes to this limit is cut.
            chat_format: True gives base, too, the prompt between the marks that the other stages always see.

        Returns:
            for each stage the text of its answer, how many tokens it has
            whether the model stopped by itself or was cut
            the reward model's score of it (higher is preferred, null without reward model)
        """
        family.admit(prompt, len(family.models))
        decoding = Decoding(max_new_tokens, temperature, top_p, seed)
        if max_new_tokens > family.context:
            raise InputError(f"max_new_tokens is {max_new_tokens}; the context has room for {family.context} tokens")
        allocation = family.allocation(prompt, decoding, flag("chat_format", chat_format))
        request = Request(0, prompt, decoding, chat_format, allocation=allocation)
        return {stage: answer(stage, request) for stage in family.models}

    def answer(stage: str, request: Request) -> dict[str, Any]:
        *_, last = family.views(stage, request)
        if last.state == "failed":
            raise gr.Error(f"the {stage} column failed: {last.error}", print_exception=False)
        return {"text": last.text, "tokens": last.tokens, "stopped": last.state == "stopped", "reward": last.reward}

    return compare


def score_call(family: LoadedFamily) -> Callable[..., float]:
    def score(prompt: str, response: str, finished: bool = True) -> float:
        """Score any answer to a prompt with the reward model that trained the RLHF stage.

        Args:
            prompt: What was asked.
            response: The answer to score, whoever wrote it. It may be empty.
            finished: False if the answer was cut at a limit; that can cost it reward.

        Returns:
            the reward: higher is preferred, and 0 is what the SFT stage's answers get on average
        """
        if family.reward is None:
            more = "" if family.published else " yet; train it with: python -m pipeline run"
            raise InputError(f"this family has no reward model{more}")
        family.limits.admit()
        exchange = (text("prompt", prompt), text("response", response))
        return family.reward.scores([exchange], [flag("finished", finished)])[0]

    return score


def flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InputError(f"{name} is {value!r:.60}; it must be true or false")
    return value


def answered(call: Callable[..., Any]) -> Callable[..., Any]:
    """The call, with what a caller got wrong as the error they are sent, and nothing of it in our log."""

    @wraps(call)
    def answering(*values: Any) -> Any:
        try:
            return call(*values)
        except InputError as error:
            raise gr.Error(told(error), print_exception=False) from error

    return answering
