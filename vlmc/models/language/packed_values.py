"""What the operations of a packed step pass to each other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Heads:
    """Query heads, key heads, and the width of each."""

    queries: int
    keys: int
    width: int


@dataclass(frozen=True, slots=True)
class Quantized:
    """E4M3 values (tokens, width) with fp32 scales (tokens, 1); `dtype` is that of the states."""

    values: Tensor
    scales: Tensor
    dtype: torch.dtype
