"""Keys and values of all sequences in pages of 16 tokens."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from vlmc.checkpoint.config import LanguageConfig

PAGE_TOKENS = 16


class PagedCache:
    """One slab of keys and one of values, (layers, slots, kv_heads, head_dim).

    A page is 16 consecutive slots. Which sequence a page belongs to is not known here: a batch
    names the slot of every token, and the pages of every sequence in order.
    """

    def __init__(
        self,
        config: LanguageConfig,
        pages: int,
        *,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        shape = (config.layers, pages * PAGE_TOKENS, config.kv_heads, config.head_dim)
        # Zeros, not empty: masked keys are multiplied by zero, and 0 · NaN would be NaN.
        self.keys = _zeros(shape, dtype, torch.device(device))
        self.values = _zeros(shape, dtype, torch.device(device))
        self.pages = pages

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """Keys and values of one layer, each (slots, kv_heads, head_dim)."""
        return self.keys[index], self.values[index]

    def copy_page(self, source: int, target: int) -> None:
        """Copy one page of all layers: a sequence that forks writes to a page of its own."""
        start, to = source * PAGE_TOKENS, target * PAGE_TOKENS
        for slab in (self.keys, self.values):
            slab[:, to : to + PAGE_TOKENS] = slab[:, start : start + PAGE_TOKENS]


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros; on a CPU they take memory only where they are used, which torch's own do at once."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    held = np.zeros(math.prod(shape) * dtype.itemsize, np.uint8)
    return torch.from_numpy(held).view(dtype).view(shape)


def pages_for(tokens: int) -> int:
    """Pages that hold so many tokens."""
    return -(-tokens // PAGE_TOKENS)
