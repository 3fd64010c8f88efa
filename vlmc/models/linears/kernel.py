"""The interface of 4-bit GPU kernels."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Kernel(Protocol):
    """One linear's 4-bit weight in the kernel's layout; there is no other copy."""

    name: str  # kernel and version, as part of autotuning keys
    shape: tuple[int, int]  # outputs, inputs
    group_size: int
    symmetric: bool
    dtype: torch.dtype
    max_rows: int
    """The most rows that `multiply` supports; 0 if it is not supported."""

    def multiply(self, rows: Tensor) -> Tensor:
        """(rows, inputs) → (rows, outputs)."""

    def dequantize(self) -> Tensor:
        """The weight (outputs, inputs), in newly allocated memory."""
