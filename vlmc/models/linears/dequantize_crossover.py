"""From how many rows on it is quicker to dequantize a weight and multiply by cuBLAS.

Measured once for a shape, a kernel and a GPU.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from vlmc.models.linears.autotune import autotuned, describe, milliseconds
from vlmc.models.linears.kernel import Kernel

SIZES = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
NEVER = 1 << 30


def dequantize_from(kernel: Kernel) -> int:
    """Rows from which on the weight is dequantized; NEVER where the kernel is always quicker."""
    if kernel.max_rows == 0:
        return 0
    border = autotuned("w4a16-rows", describe(kernel), lambda: measure(kernel), int)
    return min(border, kernel.max_rows + 1)


def measure(kernel: Kernel) -> int:
    """The smallest of SIZES from which on cuBLAS is quicker, dequantization included."""
    inputs = kernel.shape[1]
    border = NEVER
    device = torch.device("cuda", torch.cuda.current_device())
    for size in reversed(SIZES):
        rows = torch.randn(size, inputs, dtype=kernel.dtype, device=device)

        def dequantized(rows: Tensor = rows) -> Tensor:
            return functional.linear(rows, kernel.dequantize())

        def multiplied(rows: Tensor = rows) -> Tensor:
            return kernel.multiply(rows)

        if size <= kernel.max_rows and milliseconds(multiplied) <= milliseconds(dequantized):
            break
        border = size
    return border
