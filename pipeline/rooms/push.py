"""What a room decides about its policy."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Push:
    """Where the policy starts (`sft` or `rlhf`), how many steps it goes, and how tightly KL holds it there."""

    start: str = "sft"
    steps: int = 30
    kl_coefficient: float = 0.05
