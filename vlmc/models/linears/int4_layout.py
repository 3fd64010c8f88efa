"""Layouts of packed 4-bit weights, detected by repacking known values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vlmc.checkpoint.packed import pack, unpack

_DIGITS = 3


@dataclass(frozen=True, slots=True)
class TiledLayout:
    """A tiled layout of 4-bit weights in int32 words.

    A tile has (tile_n, tile_k) elements and fills whole words. The tile of output n and input k
    starts at word n // tile_n · stride_n + k // tile_k · stride_k. In the tile, the element is the
    4-bit value number `positions[n % tile_n, k % tile_k]`. Scales and zero points of output n are
    in column n // 64 · 64 + `columns[n % 64]`.
    """

    tile_n: int
    tile_k: int
    stride_n: int
    stride_k: int
    positions: Tensor  # (tile_n · tile_k,) int16
    columns: Tensor  # (64,) int32


def find_positions(
    repack: Callable[[Tensor], Tensor], tile_n: int, tile_k: int, device: torch.device
) -> Tensor:
    """Detect where `repack` moves the elements of one tile.

    Args:
        repack: permutes the 4-bit values of int32 words (tile_n, tile_k / 8).
        tile_n: outputs of a tile.
        tile_k: inputs of a tile.
        device: where to run `repack`.

    Returns:
        int16 (tile_n · tile_k,): the new position of each element.
    """
    count = tile_n * tile_k
    index = torch.arange(count, device=device).view(tile_n, tile_k)
    stored = torch.zeros(count, dtype=torch.int64, device=device)
    # 4 bits hold one hexadecimal digit of an element's index, so each digit needs its own pass.
    for digit in range(_DIGITS):
        digits = (index >> 4 * digit & 15).to(torch.uint8)
        stored += unpack(repack(pack(digits)).reshape(1, -1))[0].long() << 4 * digit
    positions = torch.empty(count, dtype=torch.int16, device=device)
    positions[stored] = torch.arange(count, dtype=torch.int16, device=device)
    return positions


def plain_layout(inputs: int, device: torch.device) -> TiledLayout:
    """The compressed-tensors layout of (outputs, `inputs`): eight inputs per word."""
    positions = torch.arange(8, dtype=torch.int16, device=device)
    columns = torch.arange(64, dtype=torch.int32, device=device)
    return TiledLayout(1, 8, inputs // 8, 1, positions, columns)
