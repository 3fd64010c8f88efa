"""Floating-point operations of the vision tower and the language model, counted from shapes.

A multiply-add is two operations. Only matrix products count, those of attention included: norms,
activations and rotations are below one percent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vlmc.checkpoint.config import LanguageConfig, VisionConfig
from vlmc.image.tiles import TOKENS_PER_TILE


@dataclass(frozen=True, slots=True)
class RowWork:
    """One sequence's share of a step: `count` new tokens after `start` in the cache.

    `is_decode` says that the token was generated, `ends_prompt` that logits follow from the last.
    """

    start: int
    count: int
    is_decode: bool
    ends_prompt: bool


def tower_flops(vision: VisionConfig, layers: int, features: int) -> int:
    """Operations on one tile: patch embedding, `layers` blocks, and the projector to `features`."""
    patches, hidden, inner = vision.grid**2, vision.hidden_size, vision.intermediate_size
    tokens = patches + 1
    embedding = 2 * patches * 3 * vision.patch_size**2 * hidden
    linears = 2 * tokens * (4 * hidden * hidden + 2 * hidden * inner)
    attention = 4 * tokens**2 * hidden
    projector = 2 * TOKENS_PER_TILE * (4 * hidden * features + features * features)
    return embedding + layers * (linears + attention) + projector


def language_flops(config: LanguageConfig, rows: Iterable[RowWork]) -> int:
    """Operations of one packed step.

    As `PackedDecoder` computes it: attention is causal; in the last layer all tokens get keys and
    values, and only the last token of a row gets the rest; logits follow where a prompt ends.
    """
    hidden, width = config.hidden_size, config.heads * config.head_dim
    qkv = hidden * (width + 2 * config.kv_heads * config.head_dim)
    rest = width * hidden + 3 * hidden * config.intermediate_size
    tokens = pairs = last = last_pairs = logits = 0
    for row in rows:
        tokens += row.count
        pairs += row.count * row.start + row.count * (row.count + 1) // 2
        last += 1
        last_pairs += row.start + row.count
        logits += row.ends_prompt
    linears = tokens * (config.layers * qkv + (config.layers - 1) * rest) + last * rest
    attention = width * ((config.layers - 1) * pairs + last_pairs)
    return 2 * (linears + logits * hidden * config.vocab_size) + 4 * attention
