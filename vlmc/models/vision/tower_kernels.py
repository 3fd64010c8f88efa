"""Triton kernels of the fused tower. Imported only on CUDA, where torch includes Triton."""

from __future__ import annotations

import triton
import triton.language as tl

from vlmc.models.linears import e4m3

# Kernels read no other globals.
FP8_LIMIT = tl.constexpr(e4m3.E4M3_MAX)


@triton.jit
def attend_kernel(
    query_ptr,
    key_ptr,
    value_ptr,
    scale_ptr,
    out_ptr,
    class_rows,
    query_stride,
    key_stride,
    value_stride,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PATCHES: tl.constexpr,
    SOFTMAX_SCALE: tl.constexpr,
    QUANTIZE: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Attention of one block of queries, for one head of one tile, over all 1025 keys.

    The class token's key and value initialize the online softmax, so the loop covers the 1024
    patches in whole blocks. The last block of queries holds only the class token.
    SOFTMAX_SCALE includes log2(e), because the kernel uses exp2.
    """
    block = tl.program_id(0)
    tile = tl.program_id(1) // HEADS
    head = tl.program_id(1) % HEADS
    first = tile.to(tl.int64) * PATCHES
    class_row = tile.to(tl.int64) + class_rows
    column = head * HEAD_DIM + tl.arange(0, HEAD_DIM)
    offset = tl.arange(0, BLOCK_Q)
    is_class = block == PATCHES // BLOCK_Q
    rows = tl.where(is_class, class_row + offset * 0, first + block * BLOCK_Q + offset)

    query = tl.load(query_ptr + rows[:, None] * query_stride + column[None, :])
    class_key = tl.load(key_ptr + class_row * key_stride + column).to(tl.float32)
    class_value = tl.load(value_ptr + class_row * value_stride + column)

    top = tl.sum(query.to(tl.float32) * class_key[None, :], 1) * SOFTMAX_SCALE
    total = tl.full((BLOCK_Q,), 1.0, tl.float32)
    mixed = tl.zeros((BLOCK_Q, HEAD_DIM), tl.float32) + class_value.to(tl.float32)[None, :]
    keys = first + tl.arange(0, BLOCK_K)
    key_ptrs = key_ptr + keys[None, :] * key_stride + column[:, None]
    value_ptrs = value_ptr + keys[:, None] * value_stride + column[None, :]
    for _ in range(0, PATCHES, BLOCK_K):
        key = tl.load(key_ptrs)
        score = tl.dot(query, key, input_precision="ieee")
        higher = tl.maximum(top, tl.max(score, 1) * SOFTMAX_SCALE)
        weight = tl.exp2(score * SOFTMAX_SCALE - higher[:, None])
        shrink = tl.exp2(top - higher)
        mixed = mixed * shrink[:, None]
        value = tl.load(value_ptrs)
        mixed = tl.dot(weight.to(value.dtype), value, mixed, input_precision="ieee")
        total = total * shrink + tl.sum(weight, 1)
        top = higher
        key_ptrs += BLOCK_K * key_stride
        value_ptrs += BLOCK_K * value_stride
    mixed = mixed / total[:, None]
    if QUANTIZE:
        mixed = tl.clamp(mixed / tl.load(scale_ptr), -FP8_LIMIT, FP8_LIMIT)
    tl.store(
        out_ptr + rows[:, None] * (HEADS * HEAD_DIM) + column[None, :],
        mixed.to(out_ptr.dtype.element_ty),
        mask=((offset == 0) | (block < PATCHES // BLOCK_Q))[:, None],
    )


@triton.jit
def linear_gelu_kernel(
    input_ptr,
    weight_ptr,
    input_scale_ptr,
    weight_scale_ptr,
    bias_ptr,
    scale_ptr,
    out_ptr,
    rows,
    outputs,
    inputs,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
    WHOLE: tl.constexpr,
):
    """fp8 linear, GELU and quantization: input (rows, inputs), weight (outputs, inputs).

    WHOLE: the block sizes divide `inputs` and `outputs`, so masks are not needed. Blocks are
    ordered in groups of GROUP rows, so that concurrent blocks share data in the L2 cache.
    """
    program = tl.program_id(0)
    blocks_m = tl.cdiv(rows, BLOCK_M)
    per_group = GROUP * tl.cdiv(outputs, BLOCK_N)
    first = (program // per_group) * GROUP
    height = min(blocks_m - first, GROUP)
    block_m = first + (program % per_group) % height
    block_n = (program % per_group) // height

    row = block_m * BLOCK_M + tl.arange(0, BLOCK_M)
    output = block_n * BLOCK_N + tl.arange(0, BLOCK_N)
    inner = tl.arange(0, BLOCK_K)
    read_row = tl.where(row < rows, row, 0).to(tl.int64)
    read_output = output if WHOLE else tl.where(output < outputs, output, 0)
    input_ptrs = input_ptr + read_row[:, None] * inputs + inner[None, :]
    weight_ptrs = weight_ptr + read_output[None, :] * inputs + inner[:, None]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, inputs, BLOCK_K):
        if WHOLE:
            left = tl.load(input_ptrs)
            right = tl.load(weight_ptrs)
        else:
            inside = inner < inputs - start
            left = tl.load(input_ptrs, mask=inside[None, :], other=0.0)
            right = tl.load(weight_ptrs, mask=inside[:, None], other=0.0)
        total = tl.dot(left, right, total)
        input_ptrs += BLOCK_K
        weight_ptrs += BLOCK_K

    gain = tl.load(input_scale_ptr) * tl.load(weight_scale_ptr)
    bias = tl.load(bias_ptr + read_output)
    total = _gelu(total * gain + bias[None, :])
    total = tl.clamp(total / tl.load(scale_ptr), -FP8_LIMIT, FP8_LIMIT)
    tl.store(
        out_ptr + row[:, None].to(tl.int64) * outputs + output[None, :],
        total.to(out_ptr.dtype.element_ty),
        mask=(row < rows)[:, None] & (output < outputs)[None, :],
    )


@triton.jit
def add_norm_kernel(
    states_ptr,
    mixed_ptr,
    gain_ptr,
    bias_ptr,
    norm_weight_ptr,
    norm_bias_ptr,
    scale_ptr,
    added_ptr,
    normed_ptr,
    HIDDEN: tl.constexpr,
    EPS: tl.constexpr,
    CENTRED: tl.constexpr,
    QUANTIZE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Compute states + mixed · gain + bias for one row, and its norm, quantized if QUANTIZE."""
    column = tl.arange(0, BLOCK)
    inside = column < HIDDEN
    place = tl.program_id(0).to(tl.int64) * HIDDEN + column
    added = tl.load(states_ptr + place, mask=inside, other=0.0).to(tl.float32)
    mixed = tl.load(mixed_ptr + place, mask=inside, other=0.0).to(tl.float32)
    gain = tl.load(gain_ptr + column, mask=inside, other=0.0)
    added += mixed * gain + tl.load(bias_ptr + column, mask=inside, other=0.0)
    tl.store(added_ptr + place, added.to(added_ptr.dtype.element_ty), mask=inside)
    if CENTRED:
        added = tl.where(inside, added - tl.sum(added, 0) / HIDDEN, 0.0)
    normed = added * tl.rsqrt(tl.sum(added * added, 0) / HIDDEN + EPS)
    normed = normed * tl.load(norm_weight_ptr + column, mask=inside, other=0.0)
    if CENTRED:
        normed += tl.load(norm_bias_ptr + column, mask=inside, other=0.0)
    if QUANTIZE:
        normed = tl.clamp(normed / tl.load(scale_ptr), -FP8_LIMIT, FP8_LIMIT)
    tl.store(normed_ptr + place, normed.to(normed_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _gelu(x):
    """GELU x·Φ(x) to 3e-6, with Φ as a logistic function of a polynomial fit of its log-odds.

    `erf` needs five times the instructions, which the epilogue cannot hide.
    """
    square = x * x
    slope = 3.21038814e-06 * square - 8.79099405e-05
    slope = slope * square - 3.62046939e-04
    slope = slope * square + 1.05229976e-01
    slope = slope * square + 2.30204378e00
    return x / (1.0 + tl.exp2(-x * slope))
