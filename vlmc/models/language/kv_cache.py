"""Keys and values of a batch of sequences."""

from __future__ import annotations

import torch
from torch import Tensor

from vlmc.checkpoint.config import LanguageConfig


class KVCache:
    """Contiguous, right-padded keys and values of `rows` sequences of different lengths.

    Shapes: (rows, kv_heads, capacity, head_dim) per layer. `lengths`, (rows,) int64, counts the
    tokens written to each row. A new token goes to the next position of its own row, so a row's
    result does not depend on other rows.
    """

    def __init__(
        self,
        config: LanguageConfig,
        rows: int,
        capacity: int,
        *,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        shape = (config.layers, rows, config.kv_heads, capacity, config.head_dim)
        # Not `empty`: masked positions are multiplied by zero, and 0 · NaN is NaN.
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.lengths = torch.zeros(rows, dtype=torch.int64, device=device)

    @property
    def capacity(self) -> int:
        """The maximum number of tokens per row."""
        return self.keys.shape[3]

    def write(self, layer: int, positions: Tensor, keys: Tensor, values: Tensor) -> None:
        """Write (rows, kv_heads, tokens, head_dim) at `positions` (rows, tokens) of one layer."""
        rows = torch.arange(keys.shape[0], device=keys.device)[:, None]
        self.keys[layer][rows, :, positions] = keys.transpose(1, 2)
        self.values[layer][rows, :, positions] = values.transpose(1, 2)

    def read(self, layer: int, tokens: int) -> tuple[Tensor, Tensor]:
        """Views of the first `tokens` positions of one layer."""
        return self.keys[layer][:, :, :tokens], self.values[layer][:, :, :tokens]

    def select(self, rows: Tensor, capacity: int) -> KVCache:
        """Copy `rows` (n,) int64, in that order and with repeats, into a cache of `capacity`."""
        selected = object.__new__(KVCache)
        kept = min(self.capacity, capacity)
        shape = (*self.keys.shape[:1], len(rows), self.keys.shape[2], capacity, self.keys.shape[4])
        selected.keys, selected.values = self.keys.new_zeros(shape), self.values.new_zeros(shape)
        selected.keys[:, :, :, :kept] = self.keys[:, rows, :, :kept]
        selected.values[:, :, :, :kept] = self.values[:, rows, :, :kept]
        selected.lengths = self.lengths[rows].clone()
        return selected
