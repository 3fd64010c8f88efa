"""Layouts of 4-bit weights, found by looking where a repacking puts each element."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vlmc.checkpoint.packed import pack, unpack

_DIGITS = 3


@dataclass(frozen=True, slots=True)
class TiledLayout:
    """Where a layout of 4-bit weights keeps the element of output n and input k.

    Tiles of (tile_n, tile_k) elements are whole words: element (n, k) is nibble
    `places[n % tile_n, k % tile_k]` of the words from n // tile_n · stride_n + k // tile_k ·
    stride_k. Scales and zero points of output n stand at the column
    n // 64 · 64 + `columns[n % 64]` of theirs.
    """

    tile_n: int
    tile_k: int
    stride_n: int
    stride_k: int
    places: Tensor  # (tile_n · tile_k,) int16
    columns: Tensor  # (64,) int32


def find_places(
    repack: Callable[[Tensor], Tensor], tile_n: int, tile_k: int, device: torch.device
) -> Tensor:
    """Where `repack` puts the elements of one tile: (tile_n · tile_k,) int16 nibbles.

    Args:
        repack: from int32 words of eight inputs each, (tile_n, tile_k / 8), to those of the layout,
            which only moves nibbles.
    """
    count = tile_n * tile_k
    index = torch.arange(count, device=device).view(tile_n, tile_k)
    held = torch.zeros(count, dtype=torch.int64, device=device)
    # As many products as the index has digits to base 16.
    for digit in range(_DIGITS):
        nibbles = (index >> 4 * digit & 15).to(torch.uint8)
        held += unpack(repack(pack(nibbles)).reshape(1, -1))[0].long() << 4 * digit
    places = torch.empty(count, dtype=torch.int16, device=device)
    places[held] = torch.arange(count, dtype=torch.int16, device=device)
    return places


def plain_layout(inputs: int, device: torch.device) -> TiledLayout:
    """compressed-tensors' own layout of (outputs, `inputs`): eight inputs a word."""
    places = torch.arange(8, dtype=torch.int16, device=device)
    columns = torch.arange(64, dtype=torch.int32, device=device)
    return TiledLayout(1, 8, inputs // 8, 1, places, columns)
