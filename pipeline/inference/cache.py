"""A key-value cache with room for the tokens to come.

The cache of `transformers` copies every earlier key and value at every step: at 64 rows that took
more than half of the time. Imported late: it needs torch.
"""

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
