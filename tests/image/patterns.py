"""Images that are the same on every machine and library version."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def pattern(width: int, height: int) -> npt.NDArray[np.uint8]:
    """Smooth ramps with hard edges over them, uint8 (height, width, 3)."""
    row, column = np.mgrid[0:height, 0:width].astype(np.int64)
    red = row * 7 + column * 3
    green = (row * column) // 5 + 40 * ((row // 9 + column // 13) % 2)
    blue = row**2 // 11 - column**2 // 17
    image: npt.NDArray[np.uint8] = (np.stack([red, green, blue], axis=-1) % 256).astype(np.uint8)
    return image


def scene(width: int, height: int) -> npt.NDArray[np.uint8]:
    """Something like a photograph: soft shading, a few objects with edges, slight grain."""
    row, column = np.mgrid[0:height, 0:width] / np.float64(max(width, height))
    shade = 120 + 70 * np.sin(3 * row + 2 * column)
    image = np.stack([shade, shade * 0.9 + 20 * column, shade * 0.7 + 40 * row], axis=-1)
    generator = np.random.default_rng(7)
    for _ in range(25):
        top, left = generator.uniform(0, 0.9, 2)
        tall, wide = generator.uniform(0.02, 0.3, 2)
        inside = (row > top) & (row < top + tall) & (column > left) & (column < left + wide)
        image[inside] = 0.3 * image[inside] + 0.7 * generator.uniform(0, 255, 3)
    image += generator.normal(0, 2, image.shape)
    rounded: npt.NDArray[np.uint8] = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return rounded
