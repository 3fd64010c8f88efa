"""Memory of a language model beside its weights, and how many tokens of it fit on a GPU."""

from __future__ import annotations

from vlmc.checkpoint.config import LanguageConfig
from vlmc.image.tiles import TOKENS_PER_TILE

LEAST_TOKENS = 14 * TOKENS_PER_TILE
"""Tokens that the KV cache must hold: one image of the published rule's 13 tiles and a question."""
# Nine tenths of the memory that is free after loading. The rest is for libraries and fragmentation.
_SHARE, _OF = 9, 10


def cache_bytes_per_token(config: LanguageConfig, element_bytes: int) -> int:
    """Keys and values of one token in all layers."""
    return 2 * config.layers * config.kv_heads * config.head_dim * element_bytes


def activation_bytes(config: LanguageConfig, element_bytes: int, tokens: int) -> int:
    """The most memory that a step of so many tokens takes beside weights and cache."""
    widths = (
        4 * config.hidden_size
        + 2 * (config.heads + 2 * config.kv_heads) * config.head_dim
        + 3 * config.intermediate_size
    )
    return tokens * widths * element_bytes


def tokens_that_fit(
    config: LanguageConfig, element_bytes: int, free_bytes: int, step_tokens: int
) -> int:
    """Tokens that the KV cache of a GPU gets, beside what a step of `step_tokens` computes.

    They are fewer than `LEAST_TOKENS`, or negative, if `free_bytes` are too few.

    Args:
        config: of the part of the model that the GPU holds.
        element_bytes: of a value of the dtype that the model computes in.
        free_bytes: that are free on the GPU after loading.
    """
    usable = free_bytes * _SHARE // _OF - activation_bytes(config, element_bytes, step_tokens)
    return usable // cache_bytes_per_token(config, element_bytes)


def least_free_bytes(config: LanguageConfig, element_bytes: int, step_tokens: int) -> int:
    """Bytes that must be free on a GPU after loading so that `LEAST_TOKENS` fit."""
    cache = LEAST_TOKENS * cache_bytes_per_token(config, element_bytes)
    used = cache + activation_bytes(config, element_bytes, step_tokens)
    return -(-used * _OF // _SHARE)
