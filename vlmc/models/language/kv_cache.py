"""Keys and values of a batch of sequences."""

from __future__ import annotations

import torch
from torch import Tensor

from vlmc.checkpoint.config import LanguageConfig


class KVCache:
    """Contiguous keys and values of `rows` sequences, right-padded, each with its own length.

    Shapes: per layer (rows, kv_heads, capacity, head_dim). `lengths` is (rows,) int64: how many
    tokens of each row are written. A new token of a row goes to the row's own next place, so a
    short row beside a long one computes what it would compute alone.
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
        # Zeros, not empty: masked places are multiplied by zero, and 0 · NaN would be NaN.
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.lengths = torch.zeros(rows, dtype=torch.int64, device=device)

    @property
    def capacity(self) -> int:
        """Tokens that a row can hold."""
        return self.keys.shape[3]

    def write(self, layer: int, positions: Tensor, keys: Tensor, values: Tensor) -> None:
        """Store (rows, kv_heads, tokens, head_dim) at `positions` (rows, tokens) of one layer."""
        rows = torch.arange(keys.shape[0], device=keys.device)[:, None]
        self.keys[layer][rows, :, positions] = keys.transpose(1, 2)
        self.values[layer][rows, :, positions] = values.transpose(1, 2)

    def read(self, layer: int, tokens: int) -> tuple[Tensor, Tensor]:
        """Views of the first `tokens` places of one layer."""
        return self.keys[layer][:, :, :tokens], self.values[layer][:, :, :tokens]

    def select(self, rows: Tensor, capacity: int) -> KVCache:
        """A copy of `rows` (n,) int64, in that order and as often as named, with room for
        `capacity` tokens."""
        chosen = object.__new__(KVCache)
        kept = min(self.capacity, capacity)
        shape = (*self.keys.shape[:1], len(rows), self.keys.shape[2], capacity, self.keys.shape[4])
        chosen.keys, chosen.values = self.keys.new_zeros(shape), self.values.new_zeros(shape)
        chosen.keys[:, :, :, :kept] = self.keys[:, rows, :, :kept]
        chosen.values[:, :, :, :kept] = self.values[:, rows, :, :kept]
        chosen.lengths = self.lengths[rows].clone()
        return chosen
