"""Quantized weights as numbers, in plain torch: what every kernel is compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from vlmc.checkpoint.packed import SYMMETRIC_ZERO, unpack

E4M3_MAX = 448.0
# Rows made at a time: their fp32 and integer forms exist beside the result.
ELEMENTS = 1 << 18


def dequantize_int4(
    packed: Tensor, scales: Tensor, zeros: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """Weight (out, in) in `dtype` = (q - z) · scale, multiplied in fp32 and rounded once.

    Args:
        packed: int32 (out, in/8), `scales` (out, groups), `zeros` int32 (out/8, groups) or None,
            as compressed-tensors stores them.
    """
    outputs, inputs = packed.shape[0], 8 * packed.shape[1]
    weight = torch.empty(outputs, inputs, dtype=dtype, device=packed.device)
    offsets = (
        torch.full_like(scales, SYMMETRIC_ZERO, dtype=torch.float32)
        if zeros is None
        else unpack(zeros.T).T.float()
    )
    step = max(1, ELEMENTS // inputs)
    for start in range(0, outputs, step):
        rows = slice(start, start + step)
        grouped = unpack(packed[rows]).view(-1, scales.shape[1], inputs // scales.shape[1])
        exact = (grouped.float() - offsets[rows, :, None]) * scales[rows, :, None].float()
        weight[rows] = exact.flatten(1)
    return weight


def dequantize_fp8(values: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """Weight (out, in) in `dtype` from E4M3 values (out, in) and scales (out, 1)."""
    weight = torch.empty(values.shape, dtype=dtype, device=values.device)
    step = max(1, ELEMENTS // values.shape[1])
    for start in range(0, len(values), step):
        rows = slice(start, start + step)
        weight[rows] = values[rows].float() * scales[rows].float()
    return weight


def quantize_tokens(states: Tensor) -> tuple[Tensor, Tensor]:
    """E4M3 values and fp32 scales (tokens, 1) of `states` (tokens, inputs), each token by itself:
    its largest value becomes 448."""
    wide = states.float()
    # A token of zeros alone has any scale.
    scales = (wide.abs().amax(dim=-1, keepdim=True) * (1 / E4M3_MAX)).clamp(min=1e-12)
    return (wide / scales).to(torch.float8_e4m3fn), scales
