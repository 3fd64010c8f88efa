"""Eight synthetic tiles for an engine's self-test."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vlmc.artifact.vision_files import GOLDEN_TILES

_SIDE = 448


def golden_tiles() -> npt.NDArray[np.uint8]:
    """uint8 (8, 448, 448, 3), the same everywhere: ramps, waves, blocks and text-like strokes.

    They are drawn with integer arithmetic, so they do not depend on library versions. They range
    from flat to busy and from dark to bright, because an engine may fail on one kind only.
    """
    generator = np.random.Generator(np.random.PCG64(20240719))
    rows, columns = np.mgrid[0:_SIDE, 0:_SIDE].astype(np.int64)
    tiles = np.zeros((GOLDEN_TILES, _SIDE, _SIDE, 3), np.uint8)
    for index, tile in enumerate(tiles):
        slope = generator.integers(1, 8, size=(3, 2))
        for channel in range(3):
            ramp = (rows * slope[channel, 0] + columns * slope[channel, 1]) // (4 + 3 * index)
            tile[:, :, channel] = np.abs((ramp + 64 * index) % 512 - 256).clip(0, 255)
        for _ in range(12 * index):
            top, left = generator.integers(0, _SIDE, size=2)
            height, width = generator.integers(2, 16 if index % 2 else 120, size=2)
            tile[top : top + height, left : left + width] = generator.integers(0, 256, size=3)
    tiles[0] = tiles[0] // 8
    return tiles
