"""A key-value cache that is written in place instead of copied at every token."""

import torch
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer

_SPARE_TOKENS = 64


class GrowingLayer(DynamicLayer):
    """One layer's keys and values inside larger buffers.

    `DynamicLayer` concatenates, hence copies all keys and values for every new token. Here the
    new token is written behind the others, and the buffers grow by half when they are full.
    `keys` and `values` are views of the used part, shape (B, heads, tokens, head size).
    """

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Start with empty buffers of the states' type and device."""
        super().lazy_initialization(key_states, value_states)
        self._length = 0
        self._key_buffer = key_states[:, :, :0]
        self._value_buffer = value_states[:, :, :0]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append states, shape (B, heads, new tokens, head size); return all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self._length
        self._length += key_states.shape[-2]
        if self._length > self._key_buffer.shape[-2]:
            self._key_buffer = _with_room(self._key_buffer[:, :, :start], self._length)
            self._value_buffer = _with_room(self._value_buffer[:, :, :start], self._length)
        self._key_buffer[:, :, start : self._length] = key_states
        self._value_buffer[:, :, start : self._length] = value_states
        return self._set_views()

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Make row `indices[i]` the new row i. More rows than before are a full copy."""
        self._key_buffer = _select_rows(self._key_buffer, indices, self._length)
        self._value_buffer = _select_rows(self._value_buffer, indices, self._length)
        self._set_views()

    def _set_views(self) -> tuple[torch.Tensor, torch.Tensor]:
        keys = self._key_buffer[:, :, : self._length]
        values = self._value_buffer[:, :, : self._length]
        self.keys, self.values = keys, values
        return keys, values


def _with_room(states: torch.Tensor, num_tokens: int) -> torch.Tensor:
    capacity = num_tokens + max(_SPARE_TOKENS, num_tokens // 2)
    num_rows, num_heads, used, size = states.shape
    buffer = states.new_empty(num_rows, num_heads, capacity, size)
    buffer[:, :, :used] = states
    return buffer


def _select_rows(buffer: torch.Tensor, indices: torch.Tensor, length: int) -> torch.Tensor:
    used = buffer[:, :, :length]
    if len(indices) > len(buffer):
        return _with_room(used[indices], length)
    moved = (indices != torch.arange(len(indices))).nonzero()[:, 0]
    if len(moved) > 0:
        used[moved] = used[indices[moved]]
    return buffer[: len(indices)]


def growing_cache(config: PretrainedConfig) -> DynamicCache:
    """An empty cache for a model; layers of other kinds (sliding window, ...) stay as they are."""
    cache = DynamicCache(config=config)
    cache.layers = [
        GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache
