"""Tiles for towers, and the features that a tower computes of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from vlmc.models.vision.tower import VisionTower, normalize_tiles


def features_of(tower: VisionTower, tiles: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """fp32 features (T, 256, hidden) of uint8 tiles (T, 448, 448, 3)."""
    with torch.inference_mode():
        features: npt.NDArray[np.float32] = tower(
            normalize_tiles(torch.from_numpy(tiles), torch.float32)
        ).numpy()
    return features


def random_tiles(count: int) -> npt.NDArray[np.uint8]:
    """Noise, uint8 (count, 448, 448, 3)."""
    generator = np.random.default_rng(count)
    return generator.integers(0, 256, (count, 448, 448, 3), dtype=np.uint8)
