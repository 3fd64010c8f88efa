"""How near features are to those of the fp32 tower: the cosine of a flattened tile."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cosine(found: Tensor, expected: Tensor) -> float:
    """Cosine of two flattened tensors, in fp64, because 1 - 1e-5 is near the rounding of fp32.

    It is -1, the worst, where it is not a number: a value is NaN or infinite, or all are zero.
    """
    pair = found.flatten().double(), expected.flatten().double()
    value = float(torch.cosine_similarity(*pair, dim=0, eps=0.0))
    return -1.0 if math.isnan(value) else value


def tile_cosines(found: Tensor, expected: Tensor) -> Tensor:
    """The cosine of each tile's features: two (N, tokens, hidden) → (N,) in fp64, on the CPU."""
    pairs = zip(found.cpu(), expected.cpu(), strict=True)
    return torch.tensor([cosine(*pair) for pair in pairs], dtype=torch.float64)
