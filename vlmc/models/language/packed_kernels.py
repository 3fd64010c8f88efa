"""Triton kernels between the linears of a packed step, and how each is launched. CUDA only."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vlmc.models.language.packed_values import Heads, Quantized
from vlmc.models.linears.e4m3 import E4M3_MAX

_E4M3_MAX = tl.constexpr(E4M3_MAX)


def add_norm(
    states: Tensor, mixed: Tensor | None, weight: Tensor, eps: float, fp8: bool
) -> Tensor | Quantized:
    """As `packed_ops.add_norm`."""
    tokens, hidden = states.shape
    normed, scales = _outputs(states, hidden, fp8)
    _add_norm_kernel[(tokens,)](
        states,
        states if mixed is None else mixed,
        weight,
        normed,
        scales,
        hidden,
        eps,
        ADD=mixed is not None,
        QUANTIZE=fp8,
        BLOCK=triton.next_power_of_2(hidden),
        num_warps=8 if hidden > 2048 else 4,
    )
    return Quantized(normed, scales, states.dtype) if fp8 else normed


def swiglu(packed: Tensor, fp8: bool) -> Tensor | Quantized:
    """As `packed_ops.swiglu`."""
    tokens, inner = packed.shape[0], packed.shape[1] // 2
    gated, scales = _outputs(packed, inner, fp8)
    block = triton.next_power_of_2(inner)
    _swiglu_kernel[(tokens,)](
        packed, gated, scales, inner, QUANTIZE=fp8, BLOCK=block, num_warps=16 if block > 8192 else 8
    )
    return Quantized(gated, scales, packed.dtype) if fp8 else gated


def _outputs(like: Tensor, width: int, fp8: bool) -> tuple[Tensor, Tensor]:
    shape = (like.shape[0], width)
    if not fp8:
        return like.new_empty(shape), like
    values = torch.empty(shape, dtype=torch.float8_e4m3fn, device=like.device)
    return values, torch.empty(shape[0], 1, dtype=torch.float32, device=like.device)


def rotate_and_store(
    packed: Tensor,
    cosine: Tensor,
    sine: Tensor,
    slots: Tensor,
    keys: Tensor,
    values: Tensor,
    heads: Heads,
) -> Tensor:
    """As `packed_ops.rotate_and_store`."""
    query = packed.new_empty((len(packed), heads.queries * heads.width))
    _rotate_kernel[(len(packed),)](
        packed,
        cosine.contiguous(),
        sine.contiguous(),
        slots,
        query,
        keys,
        values,
        QUERIES=heads.queries,
        KEYS=heads.keys,
        WIDTH=heads.width,
        ROTATED=triton.next_power_of_2(heads.queries + heads.keys),
        STORED=triton.next_power_of_2(heads.keys),
        HALF=triton.next_power_of_2(heads.width // 2),
        FULL=triton.next_power_of_2(heads.width),
        num_warps=8,
    )
    return query


@triton.jit
def _store_row(out, scales, row, k, inside, width, value, QUANTIZE: tl.constexpr):
    if QUANTIZE:
        fp32 = value.to(tl.float32)
        scale = tl.maximum(tl.max(tl.abs(fp32), 0) * (1 / _E4M3_MAX), 1e-12)
        # Rounded as torch divides, so that both round the same values to E4M3.
        tl.store(out + row * width + k, tl.div_rn(fp32, scale).to(tl.float8e4nv), mask=inside)
        tl.store(scales + row, scale)
    else:
        tl.store(out + row * width + k, value, mask=inside)


@triton.jit
def _add_norm_kernel(
    states,
    mixed,
    weight,
    out,
    scales,
    hidden,
    eps,
    ADD: tl.constexpr,
    QUANTIZE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, BLOCK)
    inside = k < hidden
    value = tl.load(states + row * hidden + k, mask=inside, other=0)
    if ADD:
        value += tl.load(mixed + row * hidden + k, mask=inside, other=0)
        tl.store(states + row * hidden + k, value, mask=inside)
    fp32 = value.to(tl.float32)
    inverse = 1 / tl.sqrt(tl.sum(fp32 * fp32, 0) / hidden + eps)
    gain = tl.load(weight + k, mask=inside, other=0)
    normed = (fp32 * inverse).to(value.dtype) * gain
    _store_row(out, scales, row, k, inside, hidden, normed, QUANTIZE)


@triton.jit
def _swiglu_kernel(packed, out, scales, inner, QUANTIZE: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, BLOCK)
    inside = k < inner
    gate = tl.load(packed + row * 2 * inner + k, mask=inside, other=0).to(tl.float32)
    up = tl.load(packed + row * 2 * inner + inner + k, mask=inside, other=0)
    gated = (gate * tl.sigmoid(gate)).to(up.dtype) * up
    _store_row(out, scales, row, k, inside, inner, gated, QUANTIZE)


@triton.jit
def _rotate_kernel(
    packed,
    cosine,
    sine,
    slots,
    query,
    keys,
    values,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
    ROTATED: tl.constexpr,
    STORED: tl.constexpr,
    HALF: tl.constexpr,
    FULL: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    half: tl.constexpr = WIDTH // 2
    start = packed + row * ((QUERIES + 2 * KEYS) * WIDTH)
    head = tl.arange(0, ROTATED)[:, None]
    k = tl.arange(0, HALF)[None, :]
    inside = (head < QUERIES + KEYS) & (k < half)
    first = tl.load(start + head * WIDTH + k, mask=inside, other=0)
    second = tl.load(start + head * WIDTH + half + k, mask=inside, other=0)
    cos_a = tl.load(cosine + row * WIDTH + k, mask=k < half, other=0)
    cos_b = tl.load(cosine + row * WIDTH + half + k, mask=k < half, other=0)
    sin_a = tl.load(sine + row * WIDTH + k, mask=k < half, other=0)
    sin_b = tl.load(sine + row * WIDTH + half + k, mask=k < half, other=0)
    turned_a = first.to(tl.float32) * cos_a - second.to(tl.float32) * sin_a
    turned_b = second.to(tl.float32) * cos_b + first.to(tl.float32) * sin_b
    dtype = query.dtype.element_ty
    to_query = query + row * (QUERIES * WIDTH) + head * WIDTH + k
    is_query = inside & (head < QUERIES)
    tl.store(to_query, turned_a.to(dtype), mask=is_query)
    tl.store(to_query + half, turned_b.to(dtype), mask=is_query)
    slot = tl.load(slots + row)
    to_key = keys + slot * (KEYS * WIDTH) + (head - QUERIES) * WIDTH + k
    is_key = inside & (head >= QUERIES)
    tl.store(to_key, turned_a.to(dtype), mask=is_key)
    tl.store(to_key + half, turned_b.to(dtype), mask=is_key)
    stored = tl.arange(0, STORED)[:, None]
    column = tl.arange(0, FULL)[None, :]
    is_value = (stored < KEYS) & (column < WIDTH)
    value = tl.load(start + (QUERIES + KEYS + stored) * WIDTH + column, mask=is_value, other=0)
    tl.store(values + slot * (KEYS * WIDTH) + stored * WIDTH + column, value, mask=is_value)
