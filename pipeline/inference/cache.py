"""A key-value cache with room for the tokens to come.

The cache of `transformers` copies every earlier key and value at every step: at 64 rows that took
more than half of the time. Imported late: it needs torch.
"""

from typing import Any

import torch
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer

ROOM = 64  # positions added when a buffer is full


def roomy_cache(config: PreTrainedConfig) -> DynamicCache:
    """A cache for a model of this configuration; layers with a sliding window keep their own kind."""
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class RoomyLayer(DynamicLayer):
    """Keys and values [rows, heads, length, width] as views of buffers that are longer than they are."""

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self.key_buffer = key_states[:, :, :0]
        self.value_buffer = value_states[:, :, :0]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        self.key_buffer = appended(self.key_buffer, start, key_states)
        self.value_buffer = appended(self.value_buffer, start, value_states)
        self.keys = self.key_buffer[:, :, :end]
        self.values = self.value_buffer[:, :, :end]
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        length = self.get_seq_length()
        self.key_buffer = self.key_buffer[indices]
        self.value_buffer = self.value_buffer[indices]
        self.keys = self.key_buffer[:, :, :length]
        self.values = self.value_buffer[:, :, :length]


def appended(buffer: torch.Tensor, start: int, states: torch.Tensor) -> torch.Tensor:
    """The buffer, or a longer copy when it is full, with the new states written at `start`."""
    rows, heads, length, width = states.shape
    if buffer.shape[2] < start + length:
        longer = states.new_empty(rows, heads, start + length + ROOM, width)
        longer[:, :, :start] = buffer[:, :, :start]
        buffer = longer
    buffer[:, :, start : start + length] = states
    return buffer


class PlacesCache(DynamicCache):
    """A cache of rows of different lengths, each at a place of its own: rows come and go, the others stay.

    Only for models whose layers all attend to everything before a token.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config=config)
        self.places = [PlacesLayer() for _ in self.layers]
        self.layers = [*self.places]

    def take(self, place: int, other: DynamicCache, row: int, length: int) -> None:
        """Copy the last `length` positions of a row of another cache to the beginning of a place."""
        sources: list[Any] = [*other.layers]
        for layer, source in zip(self.places, sources, strict=True):
            layer.make_room(place + 1, length, like=source.keys)
            layer.buffer[0, place, :, :length] = source.keys[row, :, -length:]
            layer.buffer[1, place, :, :length] = source.values[row, :, -length:]

    def move(self, source: int, target: int) -> None:
        """Give the row at one place another, whose row is gone."""
        for layer in self.places:
            layer.buffer[:, target] = layer.buffer[:, source]

    def opened(self, lengths: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Make ready for one more token of the rows at the first places, which have these lengths. [rows]

        Returns the attention mask of that step, to be added to the scores. [rows, 1, 1, longest + 1]
        """
        longest = int(lengths.max()) + 1
        rows = torch.arange(len(lengths), device=lengths.device)
        for layer in self.places:
            layer.make_room(len(lengths), longest, like=layer.buffer)
            layer.rows, layer.lengths, layer.longest = rows, lengths, longest
        hidden = torch.arange(longest, device=lengths.device) > lengths[:, None]
        mask = torch.zeros(hidden.shape, dtype=dtype, device=lengths.device).masked_fill(hidden, -torch.inf)
        return mask[:, None, None]


class PlacesLayer(DynamicLayer):
    """Keys and values in one buffer [2, places, heads, length, width]; see PlacesCache, which fills it."""

    buffer: torch.Tensor
    rows: torch.Tensor
    lengths: torch.Tensor
    longest: int

    def make_room(self, places: int, length: int, like: torch.Tensor) -> None:
        """Have at least so many places and positions, of the kind and the last size of another tensor."""
        heads, width = like.shape[-3], like.shape[-1]
        old = self.buffer if hasattr(self, "buffer") else like.new_zeros(2, 0, heads, 0, width)
        if old.shape[1] >= places and old.shape[3] >= length:
            return
        more = max(places, 2 * old.shape[1]) if places > old.shape[1] else old.shape[1]
        longer = max(old.shape[3], -(-length // ROOM) * ROOM)
        # Zeros, because even what the mask hides is multiplied, and not-a-number would come through.
        self.buffer = like.new_zeros(2, more, heads, longer, width)
        self.buffer[:, : old.shape[1], :, : old.shape[3]] = old

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        states = torch.stack((key_states[:, :, 0], value_states[:, :, 0]), 1)
        self.buffer[:, self.rows, :, self.lengths] = states
        keys, values = self.buffer[:, : len(self.rows), :, : self.longest]
        return keys, values
