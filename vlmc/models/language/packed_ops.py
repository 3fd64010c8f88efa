"""Operations of a packed decoder step: a Triton kernel each on CUDA, plain torch elsewhere."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from vlmc.models.language.packed_batch import PackedBatch
from vlmc.models.language.packed_values import Heads, Quantized
from vlmc.models.language.paged_cache import PAGE_TOKENS
from vlmc.models.language.rope import rotate
from vlmc.models.norm import RMSNorm


def add_norm(states: Tensor, mixed: Tensor | None, norm: RMSNorm, fp8: bool) -> Tensor | Quantized:
    """Add `mixed` to `states` (tokens, hidden) in place, and norm the sum; quantized if `fp8`."""
    if not states.is_cuda:
        if mixed is not None:
            states.add_(mixed)
        normed: Tensor = norm(states)
        return normed
    from vlmc.models.language import packed_kernels

    return packed_kernels.add_norm(states, mixed, norm.weight, norm.eps, fp8)


def swiglu(packed: Tensor, fp8: bool) -> Tensor | Quantized:
    """silu(gate) · up of (tokens, 2 · inner), gate first; quantized if `fp8`."""
    if not packed.is_cuda:
        gate, up = packed.chunk(2, dim=-1)
        return functional.silu(gate) * up
    from vlmc.models.language import packed_kernels

    return packed_kernels.swiglu(packed, fp8)


def rotate_and_store(
    packed: Tensor,
    cosine: Tensor,
    sine: Tensor,
    slots: Tensor,
    keys: Tensor,
    values: Tensor,
    heads: Heads,
) -> Tensor:
    """Rotate queries and keys, and write keys and values to their slots.

    Args:
        packed: (tokens, (queries + 2 · keys) · width), queries, keys, values after each other.
        cosine, sine: (tokens, width).
        keys, values: of one layer of the cache, (slots, key heads, width).

    Returns:
        Queries (tokens, queries · width).
    """
    if not packed.is_cuda:
        sizes = [heads.queries * heads.width, heads.keys * heads.width, heads.keys * heads.width]
        query, key, value = (
            part.view(len(packed), -1, heads.width).transpose(0, 1)
            for part in torch.split(packed, sizes, dim=-1)
        )
        keys[slots] = rotate(key, cosine, sine).transpose(0, 1)
        values[slots] = value.transpose(0, 1)
        return rotate(query, cosine, sine).transpose(0, 1).flatten(1)
    from vlmc.models.language import packed_kernels

    return packed_kernels.rotate_and_store(packed, cosine, sine, slots, keys, values, heads)


def attend(query: Tensor, keys: Tensor, values: Tensor, batch: PackedBatch, heads: Heads) -> Tensor:
    """Causal attention of every new token to its own sequence, (tokens, queries · width)."""
    if not query.is_cuda:
        parts, at = [], 0
        for index, row in enumerate(batch.rows):
            own = query[at : at + row.count]
            parts.append(_attend_row(own, keys, values, batch, index, heads))
            at += row.count
        return torch.cat(parts)
    from vlmc.models.language import attention_kernels

    out = torch.empty_like(query)
    attention_kernels.attend_pages(query, keys, values, batch, heads, out, batch.decode_rows)
    attention_kernels.attend_prefill(query, keys, values, batch, heads, out)
    for start, count in batch.whole:
        rows = slice(start, start + count)
        places = batch.slots[rows]
        q, k, v = (
            part.view(1, count, -1, heads.width).transpose(1, 2)
            for part in (query[rows], keys[places], values[places])
        )
        grouped = heads.queries != heads.keys
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
        out[rows] = mixed.transpose(1, 2).reshape(count, -1)
    return out


def attend_last(
    query: Tensor, keys: Tensor, values: Tensor, batch: PackedBatch, heads: Heads
) -> Tensor:
    """Attention of the last token of every row: `query` and the result are (R, queries · width)."""
    if not query.is_cuda:
        parts = [
            _attend_row(query[index : index + 1], keys, values, batch, index, heads)
            for index in range(len(batch.rows))
        ]
        return torch.cat(parts)
    from vlmc.models.language import attention_kernels

    out = torch.empty_like(query)
    attention_kernels.attend_pages(query, keys, values, batch, heads, out, len(query))
    return out


def _attend_row(
    query: Tensor, keys: Tensor, values: Tensor, batch: PackedBatch, index: int, heads: Heads
) -> Tensor:
    """Attention of the last `len(query)` tokens of one row, through torch."""
    row = batch.rows[index]
    total, count = row.start + row.count, len(query)
    places = torch.arange(total)
    slots = batch.pages[index].long()[places // PAGE_TOKENS] * PAGE_TOKENS + places % PAGE_TOKENS
    q = query.view(count, heads.queries, heads.width).transpose(0, 1)[None]
    k, v = (part[slots].transpose(0, 1)[None] for part in (keys, values))
    whole = count == total
    mask = None
    if not whole and count > 1:
        mask = places[None, :] <= (places[total - count :])[:, None]
    mixed = functional.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=mask,
        is_causal=whole and count > 1,
        enable_gqa=heads.queries != heads.keys,
    )
    return mixed[0].transpose(0, 1).reshape(count, -1)
