"""Triton kernels of attention over pages, and how each is launched. CUDA only."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from vlmc.models.language.packed_batch import QUERY_BLOCK, PackedBatch
from vlmc.models.language.packed_values import Heads
from vlmc.models.language.paged_cache import PAGE_TOKENS

_KEYS = 64  # of a block
_MIN_GROUP = 16  # rows of a tensor-core product
_PROGRAMS = 264  # two for each multiprocessor of an H100


def attend_prefill(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    batch: PackedBatch,
    heads: Heads,
    out: Tensor,
) -> None:
    """Attention of rows with several new tokens, in blocks of `QUERY_BLOCK` queries, into `out`."""
    if not len(batch.blocks):
        return
    _prefill_kernel[(len(batch.blocks), heads.queries)](
        query,
        keys,
        values,
        batch.pages,
        batch.pages.stride(0),
        batch.blocks,
        batch.first,
        batch.last,
        batch.totals,
        out,
        _softmax_scale(heads),
        QUERIES=heads.queries,
        KEYS=heads.keys,
        WIDTH=heads.width,
        COLUMNS=triton.next_power_of_2(heads.width),
        BLOCK_Q=QUERY_BLOCK,
        BLOCK_K=_KEYS,
        PAGE=PAGE_TOKENS,
        num_warps=8,
        num_stages=3 if query.dtype != torch.float32 else 1,
    )


def attend_pages(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    batch: PackedBatch,
    heads: Heads,
    out: Tensor,
    rows: int,
) -> None:
    """Attention of the first `rows` rows with one query each, into the first rows of `out`."""
    if not rows:
        return
    splits = max(1, min(8, _PROGRAMS // (rows * heads.keys)))
    partial = sums = query
    if splits > 1:
        count = rows * heads.queries * splits
        partial = torch.empty(count * heads.width, dtype=torch.float32, device=query.device)
        sums = torch.empty(count * 2, dtype=torch.float32, device=query.device)
    group = heads.queries // heads.keys
    _decode_kernel[(rows, heads.keys, splits)](
        query,
        keys,
        values,
        batch.pages,
        batch.pages.stride(0),
        batch.totals,
        partial,
        sums,
        out,
        _softmax_scale(heads),
        splits,
        QUERIES=heads.queries,
        KEYS=heads.keys,
        WIDTH=heads.width,
        COLUMNS=triton.next_power_of_2(heads.width),
        GROUP=group,
        GROUP_ROWS=max(_MIN_GROUP, triton.next_power_of_2(group)),
        BLOCK_K=_KEYS,
        PAGE=PAGE_TOKENS,
        SPLIT=splits > 1,
        num_warps=4,
        num_stages=3 if query.dtype != torch.float32 else 1,
    )
    if splits > 1:
        _combine_kernel[(rows * heads.queries,)](
            partial,
            sums,
            out,
            splits,
            WIDTH=heads.width,
            COLUMNS=triton.next_power_of_2(heads.width),
            PARTS=triton.next_power_of_2(splits),
            num_warps=2,
        )


def _softmax_scale(heads: Heads) -> float:
    """Exponentials are powers of two, so the scale holds log2(e)."""
    return math.log2(math.e) / math.sqrt(heads.width)


# The table's width changes from step to step, and Triton would compile a kernel for each kind.
@triton.jit(do_not_specialize=["page_stride"])
def _prefill_kernel(
    query,
    keys,
    values,
    pages,
    page_stride,
    blocks,
    first,
    last,
    totals,
    out,
    scale,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PAGE: tl.constexpr,
):
    """One block of queries of one head of one row, over the row's pages up to each query."""
    row = tl.load(blocks + 2 * tl.program_id(0))
    start = tl.load(blocks + 2 * tl.program_id(0) + 1)
    head = tl.program_id(1)
    key_head = head // (QUERIES // KEYS)
    row_first = tl.load(first + row)
    count = tl.load(last + row).to(tl.int32) + 1 - row_first
    before = tl.load(totals + row) - count
    token = start + tl.arange(0, BLOCK_Q)
    column = tl.arange(0, COLUMNS)
    real = column < WIDTH
    inside = token < count
    places = (row_first + token).to(tl.int64)[:, None] * (QUERIES * WIDTH)
    places = places + head * WIDTH + column[None, :]
    held = inside[:, None] & real[None, :]
    asked = tl.load(query + places, mask=held, other=0)
    top = tl.full((BLOCK_Q,), -1e30, tl.float32)
    total = tl.zeros((BLOCK_Q,), tl.float32)
    mixed = tl.zeros((BLOCK_Q, COLUMNS), tl.float32)
    table = pages + row.to(tl.int64) * page_stride
    offset = tl.arange(0, BLOCK_K)
    end = before + tl.minimum(start + BLOCK_Q, count)
    # Up to here every query of the block sees every key.
    unmasked = (before + start) // BLOCK_K * BLOCK_K
    for at in range(0, unmasked, BLOCK_K):
        position = at + offset
        slot = tl.load(table + position // PAGE).to(tl.int64) * PAGE + position % PAGE
        own = slot * (KEYS * WIDTH) + key_head * WIDTH
        key = tl.load(keys + own[None, :] + column[:, None], mask=real[:, None], other=0)
        score = tl.dot(asked, key, input_precision="ieee") * scale
        higher = tl.maximum(top, tl.max(score, 1))
        weight = tl.exp2(score - higher[:, None])
        shrink = tl.exp2(top - higher)
        value = tl.load(values + own[:, None] + column[None, :], mask=real[None, :], other=0)
        mixed = tl.dot(
            weight.to(value.dtype), value, mixed * shrink[:, None], input_precision="ieee"
        )
        total = total * shrink + tl.sum(weight, 1)
        top = higher
    for at in range(unmasked, end, BLOCK_K):
        position = at + offset
        there = position < end
        slot = tl.load(table + position // PAGE, mask=there, other=0).to(tl.int64) * PAGE
        own = (slot + position % PAGE) * (KEYS * WIDTH) + key_head * WIDTH
        key = tl.load(
            keys + own[None, :] + column[:, None], mask=real[:, None] & there[None, :], other=0
        )
        score = tl.dot(asked, key, input_precision="ieee") * scale
        score = tl.where(position[None, :] <= (before + token)[:, None], score, -1e30)
        higher = tl.maximum(top, tl.max(score, 1))
        weight = tl.exp2(score - higher[:, None])
        shrink = tl.exp2(top - higher)
        value = tl.load(
            values + own[:, None] + column[None, :], mask=there[:, None] & real[None, :], other=0
        )
        mixed = tl.dot(
            weight.to(value.dtype), value, mixed * shrink[:, None], input_precision="ieee"
        )
        total = total * shrink + tl.sum(weight, 1)
        top = higher
    mixed = mixed / total[:, None]
    tl.store(out + places, mixed.to(out.dtype.element_ty), mask=held)


@triton.jit(do_not_specialize=["page_stride", "splits"])
def _decode_kernel(
    query,
    keys,
    values,
    pages,
    page_stride,
    totals,
    partial,
    sums,
    out,
    scale,
    splits,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    GROUP: tl.constexpr,
    GROUP_ROWS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PAGE: tl.constexpr,
    SPLIT: tl.constexpr,
):
    """One query of a row for all heads of one key head, over a part of the row's keys."""
    row = tl.program_id(0).to(tl.int64)
    key_head = tl.program_id(1)
    part = tl.program_id(2)
    length = tl.load(totals + row)
    share = tl.cdiv(tl.cdiv(length, splits), BLOCK_K) * BLOCK_K
    begin = part * share
    end = tl.minimum(begin + share, length)
    member = tl.arange(0, GROUP_ROWS)
    column = tl.arange(0, COLUMNS)
    real = column < WIDTH
    heads = row * QUERIES + key_head * GROUP + member
    held = (member < GROUP)[:, None] & real[None, :]
    asked = tl.load(query + heads[:, None] * WIDTH + column[None, :], mask=held, other=0)
    top = tl.full((GROUP_ROWS,), -1e30, tl.float32)
    total = tl.zeros((GROUP_ROWS,), tl.float32)
    mixed = tl.zeros((GROUP_ROWS, COLUMNS), tl.float32)
    table = pages + row * page_stride
    offset = tl.arange(0, BLOCK_K)
    for at in range(begin, end, BLOCK_K):
        position = at + offset
        there = position < end
        slot = tl.load(table + position // PAGE, mask=there, other=0).to(tl.int64) * PAGE
        own = (slot + position % PAGE) * (KEYS * WIDTH) + key_head * WIDTH
        key = tl.load(
            keys + own[None, :] + column[:, None], mask=real[:, None] & there[None, :], other=0
        )
        score = tl.dot(asked, key, input_precision="ieee") * scale
        score = tl.where(there[None, :], score, -1e30)
        higher = tl.maximum(top, tl.max(score, 1))
        weight = tl.exp2(score - higher[:, None])
        shrink = tl.exp2(top - higher)
        value = tl.load(
            values + own[:, None] + column[None, :], mask=there[:, None] & real[None, :], other=0
        )
        mixed = tl.dot(
            weight.to(value.dtype), value, mixed * shrink[:, None], input_precision="ieee"
        )
        total = total * shrink + tl.sum(weight, 1)
        top = higher
    if SPLIT:
        place = heads * splits + part
        own = member < GROUP
        tl.store(partial + place[:, None] * WIDTH + column[None, :], mixed, mask=held)
        tl.store(sums + 2 * place, top, mask=own)
        tl.store(sums + 2 * place + 1, total, mask=own)
    else:
        mixed = mixed / total[:, None]
        tl.store(
            out + heads[:, None] * WIDTH + column[None, :],
            mixed.to(out.dtype.element_ty),
            mask=held,
        )


@triton.jit(do_not_specialize=["splits"])
def _combine_kernel(
    partial, sums, out, splits, WIDTH: tl.constexpr, COLUMNS: tl.constexpr, PARTS: tl.constexpr
):
    """The parts of one head of one row, each with its own maximum, as one."""
    head = tl.program_id(0).to(tl.int64)
    part = tl.arange(0, PARTS)
    column = tl.arange(0, COLUMNS)
    there = part < splits
    top = tl.load(sums + 2 * (head * splits + part), mask=there, other=-1e30)
    total = tl.load(sums + 2 * (head * splits + part) + 1, mask=there, other=0)
    factor = tl.exp2(top - tl.max(top, 0))
    real = column < WIDTH
    mixed = tl.load(
        partial + (head * splits + part)[:, None] * WIDTH + column[None, :],
        mask=there[:, None] & real[None, :],
        other=0,
    )
    merged = tl.sum(mixed * factor[:, None], 0) / tl.sum(total * factor, 0)
    tl.store(out + head * WIDTH + column, merged.to(out.dtype.element_ty), mask=real)
