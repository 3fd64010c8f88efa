"""The number of rows from which dequantizing and cuBLAS beat a 4-bit kernel.

It is autotuned once for each shape, kernel and GPU.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from vlmc.models.linears.autotune import autotuned, describe, milliseconds
from vlmc.models.linears.kernel import Kernel

SIZES = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
NEVER = 1 << 30


def crossover_rows(kernel: Kernel) -> int:
    """The smallest number of rows to dequantize for; NEVER if the kernel is always faster."""
    if kernel.max_rows == 0:
        return 0
    crossover = autotuned("w4a16-rows", describe(kernel), lambda: measure_crossover(kernel), int)
    return min(crossover, kernel.max_rows + 1)


def measure_crossover(kernel: Kernel) -> int:
    """The smallest of SIZES from which cuBLAS is faster, dequantization included."""
    inputs = kernel.shape[1]
    crossover = NEVER
    device = torch.device("cuda", torch.cuda.current_device())
    for size in reversed(SIZES):
        rows = torch.randn(size, inputs, dtype=kernel.dtype, device=device)

        def dequantized(rows: Tensor = rows) -> Tensor:
            return functional.linear(rows, kernel.dequantize())

        def multiplied(rows: Tensor = rows) -> Tensor:
            return kernel.multiply(rows)

        if size <= kernel.max_rows and milliseconds(multiplied) <= milliseconds(dequantized):
            break
        crossover = size
    return crossover
