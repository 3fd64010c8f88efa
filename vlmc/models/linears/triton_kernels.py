"""Triton kernels for quantized linears: dequantize weights, quantize activations."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vlmc.models.linears.e4m3 import E4M3_MAX
from vlmc.models.linears.int4_layout import TiledLayout

_BLOCK, _MAX_BLOCK_K = 4096, 128


def dequantize_tiles(
    words: Tensor,
    layout: TiledLayout,
    scales: Tensor,
    zeros: Tensor | None,
    shape: tuple[int, int],
) -> Tensor:
    """Dequantize a 4-bit weight.

    Args:
        words: int32, in `layout`.
        layout: the layout of words and columns.
        scales: (columns, groups), with any strides.
        zeros: int32 (columns / 8, groups), with any strides, or None for symmetric weights.
        shape: (outputs, inputs).

    Returns:
        (outputs, inputs) in the dtype of `scales`.
    """
    outputs, inputs = shape
    group = inputs // scales.shape[1]
    # One tile per block along k, so that memory accesses are coalesced.
    block_k = min(layout.tile_k if layout.tile_n > 1 else _MAX_BLOCK_K, group & -group)
    block_n = _BLOCK // block_k
    weight = torch.empty(shape, dtype=scales.dtype, device=words.device)
    grid = (triton.cdiv(outputs, block_n), inputs // block_k)
    offsets = scales if zeros is None else zeros
    _dequantize[grid](
        words,
        layout.positions,
        layout.columns,
        scales,
        offsets,
        weight,
        outputs,
        inputs,
        group,
        layout.stride_n,
        layout.stride_k,
        scales.stride(0),
        scales.stride(1),
        offsets.stride(0),
        offsets.stride(1),
        HAS_ZEROS=zeros is not None,
        TILE_N=layout.tile_n,
        TILE_K=layout.tile_k,
        BLOCK_N=block_n,
        BLOCK_K=block_k,
    )
    return weight


def quantize_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """`quantize_tokens` of `vlmc.models.linears.dequantize` in one pass over (rows, inputs)."""
    rows = rows.contiguous()
    count, inputs = rows.shape
    values = torch.empty(rows.shape, dtype=torch.float8_e4m3fn, device=rows.device)
    scales = torch.empty(count, 1, dtype=torch.float32, device=rows.device)
    block = triton.next_power_of_2(inputs)
    _quantize[(count,)](
        rows, values, scales, inputs, 1 / E4M3_MAX, BLOCK=block, num_warps=8 if block > 2048 else 4
    )
    return values, scales


@triton.jit
def _dequantize(
    words,
    positions,
    columns,
    scales,
    zeros,
    weight,
    outputs,
    inputs,
    group,
    stride_n,
    stride_k,
    scale_column,
    scale_group,
    zero_word,
    zero_group,
    HAS_ZEROS: tl.constexpr,
    TILE_N: tl.constexpr,
    TILE_K: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)[:, None]
    k = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)[None, :]
    inside = n < outputs
    position = tl.load(positions + (n % TILE_N) * TILE_K + k % TILE_K).to(tl.int32)
    start = (n // TILE_N) * stride_n + (k // TILE_K) * stride_k
    word = tl.load(words + start + position // 8, mask=inside, other=0)
    nibble = (word >> (position % 8 * 4)) & 15
    column = (n // 64) * 64 + tl.load(columns + n % 64)
    of_group = tl.program_id(1) * BLOCK_K // group
    scale = tl.load(scales + column * scale_column + of_group * scale_group, mask=inside, other=0)
    zero = 8
    if HAS_ZEROS:
        at = zeros + (column // 8) * zero_word + of_group * zero_group
        zero = (tl.load(at, mask=inside, other=0) >> (column % 8 * 4)) & 15
    value = (nibble - zero).to(tl.float32) * scale.to(tl.float32)
    tl.store(weight + n * inputs + k, value.to(weight.dtype.element_ty), mask=inside)


@triton.jit
def _quantize(rows, values, scales, inputs, reciprocal, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    k = tl.arange(0, BLOCK)
    inside = k < inputs
    # int64, because rows · inputs can exceed 2^31.
    start = row.to(tl.int64) * inputs
    fp32 = tl.load(rows + start + k, mask=inside, other=0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(fp32), axis=0) * reciprocal, 1e-12)
    # `div_rn` rounds like torch's division, so both give the same E4M3 values.
    tl.store(values + start + k, tl.div_rn(fp32, scale).to(tl.float8e4nv), mask=inside)
    tl.store(scales + row, scale)
