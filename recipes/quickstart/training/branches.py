"""Many questions about one image in one pass: a shared prefix and branches that do not see each
other. Each branch computes what its question would compute alone (tests compare the two)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from recipes.quickstart.training.prompts import Prompts
from vlmc.models.language.decoder import Decoder, DecoderAttention, DecoderLayer
from vlmc.models.language.rope import rotate


def embed_prefix(decoder: Decoder, prompts: Prompts, features: Tensor) -> Tensor:
    """Image features (rows, tokens, hidden) between the prompt's head and tail."""
    rows, device = features.shape[0], features.device
    head, tail = (
        decoder.embed_tokens(torch.tensor(ids, device=device)).expand(rows, -1, -1)
        for ids in (prompts.head, prompts.tail)
    )
    return torch.cat((head, features.to(head.dtype), tail), dim=1)


def branch_logits(decoder: Decoder, prefix: Tensor, branches: Tensor) -> Tensor:
    """Scores of the next token at every place of every branch.

    Args:
        prefix: (rows, shared, hidden) embeddings.
        branches: (rows, count, length) int64 ids, right-padded with any id.

    Returns:
        (rows, count, length, vocabulary) fp32.
    """
    count, length = branches.shape[1:]
    shared = prefix.shape[1]
    device = prefix.device
    states = torch.cat((prefix, decoder.embed_tokens(branches.flatten(1))), dim=1)
    own = torch.arange(length, device=device)
    positions = torch.cat((torch.arange(shared, device=device), (shared + own).repeat(count)))
    compute = torch.get_autocast_dtype(device.type) if _autocast(device) else states.dtype
    cosine, sine = decoder.rotary(
        positions[None], torch.tensor([shared + length], device=device), compute
    )
    mask = _branch_mask(shared, count, length, device)
    last = len(decoder.layers) - 1
    layers = cast(Iterable[DecoderLayer], decoder.layers)
    for index, layer in enumerate(layers):
        # Nothing reads the prefix after the last layer's keys and values.
        first = shared if index == last else 0
        attended = _attend(
            layer.self_attn, layer.input_layernorm(states), cosine, sine, mask, shared, first
        )
        states = states[:, first:] + attended
        states = states + layer.mlp(layer.post_attention_layernorm(states))
    logits = decoder.logits(decoder.norm(states[:, -count * length :]))
    return logits.reshape(-1, count, length, logits.shape[-1])


def _autocast(device: torch.device) -> bool:
    return torch.is_autocast_enabled(device.type)


def _branch_mask(shared: int, count: int, length: int, device: torch.device) -> Tensor:
    """(1, 1, count · length, shared + count · length) bool, True where attended."""
    own = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    same = torch.eye(count, dtype=torch.bool, device=device)
    blocks = torch.kron(same, own)
    seen = torch.ones(count * length, shared, dtype=torch.bool, device=device)
    return torch.cat((seen, blocks), dim=1)[None, None]


def _attend(
    attention: DecoderAttention,
    normed: Tensor,
    cosine: Tensor,
    sine: Tensor,
    mask: Tensor,
    shared: int,
    first: int,
) -> Tensor:
    """Attention for the places from `first` on, which is 0 or `shared`."""
    query, key, value = (
        part.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
        for part in attention.qkv_proj(normed).split(attention.widths, dim=-1)
    )
    query, key = rotate(query, cosine, sine), rotate(key, cosine, sine)
    # Fused kernels with a mask take no grouped heads.
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    attended = functional.scaled_dot_product_attention(
        query[:, :, shared:], key, value, attn_mask=mask
    )
    if first == 0:
        alone = functional.scaled_dot_product_attention(
            query[:, :, :shared], key[:, :, :shared], value[:, :, :shared], is_causal=True
        )
        attended = torch.cat((alone, attended), dim=2)
    mixed: Tensor = attention.o_proj(attended.transpose(1, 2).flatten(2))
    return mixed
