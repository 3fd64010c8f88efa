"""Fold pixel normalization into the patch embedding."""

from __future__ import annotations

from torch import Tensor, nn

from vlmc.image.preprocess import MEAN, STD


def fold_pixels(embedding: nn.Conv2d, *, offset: float, scale: float) -> tuple[Tensor, Tensor]:
    """Patch embedding for inputs (x - offset) / scale with uint8 x, instead of normalized pixels.

    Returns:
        Weight (C, 3, 14, 14) and bias (C,), both fp64.
    """
    weight = embedding.weight.double()
    mean, deviation = (weight.new_tensor(values)[:, None, None] for values in (MEAN, STD))
    scaled = weight / (255 * deviation)
    shift = (scaled * (offset - 255 * mean)).sum(dim=(1, 2, 3))
    bias = 0 if embedding.bias is None else embedding.bias.double()
    return scaled * scale, bias + shift
