"""Keys of full pages of a prompt: equal keys hold equal keys and values, and only those."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vlmc.artifact.manifest import PrefixCachePolicy
from vlmc.checkpoint.config import LanguageConfig
from vlmc.models.language.paged_cache import PAGE_TOKENS


@dataclass(frozen=True, slots=True)
class ImageRun:
    """The image tokens of one image in a prompt: `tokens` from `start`.

    `digest` is that of the image's whole content and of all rules that its features depend on; an
    empty one means that the content is unknown, so nothing from it on is reused.
    """

    start: int
    tokens: int
    digest: bytes


def block_keys(
    ids: Sequence[int],
    images: Sequence[ImageRun],
    policy: PrefixCachePolicy,
    salt: bytes,
    config: LanguageConfig,
) -> list[bytes]:
    """Keys of the prompt's full pages, as far as they can be reused.

    A key covers the page's tokens, everything before it (through the key of the page before), the
    content of every image that the page overlaps and where in the page it begins, and what rope
    scaling makes of the prompt's length. Token ids alone would take one image for another of the
    same size.

    Args:
        ids: the whole prompt.
        images: its image tokens, in order.
        policy: `text` keys only pages before the first image token; `off` keys none.
        salt: the artifact's identity.
    """
    if policy == "off":
        return []
    usable = len(ids)
    if images and policy == "text":
        usable = images[0].start
    for image in images:
        if not image.digest:
            usable = min(usable, image.start)
    numbers = np.asarray(ids, np.int32)
    parent = hashlib.blake2b(salt + _rope_class(len(ids), config), digest_size=32).digest()
    keys = []
    for start in range(0, usable // PAGE_TOKENS * PAGE_TOKENS, PAGE_TOKENS):
        end = start + PAGE_TOKENS
        block = hashlib.blake2b(parent, digest_size=32)
        block.update(numbers[start:end].tobytes())
        for image in images:
            if image.start < end and start < image.start + image.tokens:
                block.update((image.start - start).to_bytes(8, "little", signed=True))
                block.update(len(image.digest).to_bytes(8, "little") + image.digest)
        parent = block.digest()
        keys.append(parent)
    return keys


def _rope_class(length: int, config: LanguageConfig) -> bytes:
    """What of a prompt's length changes its keys: nothing, a window's side, or the length."""
    scaling = config.rope_scaling
    if scaling.kind == "longrope":
        return b"long" if length > scaling.original_positions else b"short"
    if scaling.kind == "dynamic" and length > config.max_positions:
        return str(length).encode()
    return b""
