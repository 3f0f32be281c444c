"""Which examples share a batch."""

import random
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def every_epoch(examples: list[T], epochs: int, seed: int) -> list[T]:
    """The examples of all epochs one after another, each epoch in an order of its own."""
    orders = [random.Random(f"{seed} {epoch}").sample(examples, len(examples)) for epoch in range(epochs)]
    return [example for order in orders for example in order]


def in_similar_batches(examples: list[T], length: Callable[[T], int], batch_size: int, seed: int) -> list[T]:
    """The examples reordered so that those of one batch are about equally long: less padding, faster steps.

    Every 16 batches are sorted by length, cut and shuffled; the order at large stays. An incomplete
    batch comes last.
    """
    shuffle = random.Random(seed).shuffle
    ordered: list[T] = []
    for start in range(0, len(examples), 16 * batch_size):
        near = sorted(examples[start : start + 16 * batch_size], key=length)
        batches = [near[first : first + batch_size] for first in range(0, len(near), batch_size)]
        rest = batches.pop() if len(near) % batch_size else []
        shuffle(batches)
        ordered += [example for batch in batches for example in batch] + rest
    return ordered
