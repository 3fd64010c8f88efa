"""Quantize the language model's weights to fp8: E4M3 with per-channel scales."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import torch
from torch import Tensor

from vlmc.models.linears.e4m3 import E4M3_MAX


def fp8_tensors(
    tensors: Iterable[tuple[str, Tensor]], quantized: Collection[str]
) -> Iterator[tuple[str, Tensor]]:
    """Quantize the weights of the linears in `quantized`; other tensors pass through.

    A weight (outputs, inputs) becomes `weight` in E4M3 and `weight_scale` (outputs, 1) in the
    weight's dtype.
    """
    for name, tensor in tensors:
        layer, _, kind = name.rpartition(".")
        if kind != "weight" or layer not in quantized:
            yield name, tensor
            continue
        values, scale = to_fp8(tensor)
        yield name, values
        yield f"{name}_scale", scale


def to_fp8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize a finite weight to E4M3 values (outputs, inputs) and scales (outputs, 1).

    Values are computed with the rounded scale that is stored, and saturate at 448.
    """
    exact = weight.float()
    # Avoids a division by zero for outputs that are all zero.
    smallest = torch.finfo(weight.dtype).tiny
    scale = (exact.abs().amax(dim=1, keepdim=True) / E4M3_MAX).clamp(min=smallest)
    scale = scale.to(weight.dtype)
    values = (exact / scale.float()).clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)
    return values, scale
