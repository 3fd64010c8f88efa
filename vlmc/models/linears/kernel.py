"""What multiplies 4-bit weights on a GPU, whichever library computes it."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Kernel(Protocol):
    """One linear's 4-bit weight in a kernel's own layout, the only copy of it."""

    name: str  # of the kernel and the version that its speed depends on
    shape: tuple[int, int]  # outputs, inputs
    group_size: int
    symmetric: bool
    dtype: torch.dtype
    max_rows: int
    """Rows up to which `multiply` works; 0 where there is only `dequantize`."""

    def multiply(self, rows: Tensor) -> Tensor:
        """(rows, inputs) → (rows, outputs), unpacking on the way."""

    def dequantize(self) -> Tensor:
        """The weight (outputs, inputs), new memory for every call."""
