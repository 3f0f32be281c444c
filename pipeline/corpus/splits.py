"""What is held out of training, fixed by a hash of the id and never by a random call.

Growing the corpus therefore moves nothing from one side to the other.
"""

import hashlib
import re
from collections.abc import Collection

# Share of the prompt lists that is kept for measuring.
HELD_OUT_LISTED = 0.15


def fraction(*key: str) -> float:
    """A number in [0, 1) that depends on the key alone."""
    digest = hashlib.sha256("\x1f".join(key).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def card_is_held_out(card_id: str, share: float) -> bool:
    """Whether a card's questions stand in no SFT, ranking or RL data (its facts still reach base)."""
    return fraction("card", card_id) < share


def held_in(prompts: list[str], share: float) -> list[str]:
    """The wordings of one question that may be trained on: all but the held-out ones, never none."""
    kept_out = set(held_out(prompts, share))
    return [prompt for prompt in prompts if prompt not in kept_out]


def held_out(prompts: list[str], share: float) -> list[str]:
    """The wordings of one question that stand in no training data.

    Of n wordings the lowest-hashed round(n * share) are taken, at least one where there are three or more,
    and always all but one at most.
    """
    count = min(max(round(len(prompts) * share), int(len(prompts) > 2 and share > 0)), len(prompts) - 1)
    return sorted(prompts, key=lambda prompt: fraction("wording", prompt))[:count]


def prompt_is_held_out(prompt: str, share: float) -> bool:
    """Whether a prompt from the prompt lists is kept for measuring."""
    return fraction("prompt", prompt) < share


def country_is_held_out(country: str) -> bool:
    """Half of the countries never stand in SFT, ranking or RL data."""
    return fraction("country", country) < 0.5


def same_text(prompt: str) -> str:
    """A form in which prompts that differ in case, spaces or punctuation only are equal."""
    return " ".join(re.sub(r"[^a-z0-9 ]", " ", prompt.lower().replace("'", "")).split())


def repeats(text: str, prompts: Collection[str]) -> bool:
    """Whether a text is one of the prompts, or has words before or after one of them.

    The prompts have the form of `same_text`. Fewer than three words are everyday phrases and count alone only.
    """
    words = same_text(text).split()
    ends = (part for count in range(3, len(words)) for part in (words[:count], words[-count:]))
    return " ".join(words) in prompts or any(" ".join(part) in prompts for part in ends)
