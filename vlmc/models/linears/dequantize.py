"""Dequantize weights and quantize activations in plain torch, the reference for all kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from vlmc.checkpoint.packed import SYMMETRIC_ZERO, unpack
from vlmc.models.linears.e4m3 import E4M3_MAX

# Activations per step, few enough to stay in a CPU core's cache between passes.
_CACHED = 1 << 16
_EXPONENT = 0x7F800000  # exponent bits of fp32
# Weights per step, which limits the memory of fp32 and integer temporaries.
ELEMENTS = 1 << 18


def dequantize_int4(
    packed: Tensor, scales: Tensor, zeros: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """Dequantize a compressed-tensors weight: (q - zero) · scale, in fp32 and rounded once.

    Args:
        packed: int32 (out, in / 8).
        scales: (out, groups).
        zeros: int32 (out / 8, groups), or None for symmetric weights.
        dtype: dtype of the result.

    Returns:
        (out, in).
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
    """Dequantize E4M3 `values` (out, in) with `scales` (out, 1) to `dtype`."""
    weight = torch.empty(values.shape, dtype=dtype, device=values.device)
    step = max(1, ELEMENTS // values.shape[1])
    for start in range(0, len(values), step):
        rows = slice(start, start + step)
        weight[rows] = values[rows].float() * scales[rows].float()
    return weight


def quantize_tokens(states: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize `states` (tokens, inputs) to E4M3 with one fp32 scale per token, (tokens, 1)."""
    fp32 = states.float()
    scales = _token_scales(fp32)
    return (fp32 / scales).to(torch.float8_e4m3fn), scales


def round_tokens(states: Tensor) -> Tensor:
    """Round `states` (tokens, inputs) to what `quantize_tokens` represents, in their dtype.

    The result is bit-identical to quantizing and dequantizing, and much faster on a CPU.
    """
    rounded = torch.empty_like(states)
    rows = max(1, _CACHED // states.shape[-1])
    for start in range(0, len(states), rows):
        fp32 = states[start : start + rows].float()
        scales = _token_scales(fp32)
        fp32 = fp32 / scales
        # The step of E4M3 is 1/8 of the power of two below a value, and at least 2^-9. Adding and
        # subtracting 1.5 · 2^23 steps rounds to a multiple of the step, halves to even.
        power = (fp32.view(torch.int32) & _EXPONENT).view(torch.float32)
        far = power.clamp_(min=2.0**-6).mul_(1.5 * 2.0**20)
        rounded[start : start + rows] = fp32.add_(far).sub_(far).mul_(scales)
    return rounded


def _token_scales(fp32: Tensor) -> Tensor:
    # Avoids a division by zero for tokens that are all zero.
    return (fp32.abs().amax(dim=-1, keepdim=True) * (1 / E4M3_MAX)).clamp(min=1e-12)
