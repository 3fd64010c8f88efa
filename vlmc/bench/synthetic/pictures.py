"""JPEG pictures of a given size that look natural to an encoder and a decoder."""

from __future__ import annotations

import cv2
import numpy as np

_QUALITY = 90
# Side of the coarsest noise in pixels, and how much of each octave is in the picture.
_OCTAVES = ((4, 1.0), (12, 0.6), (40, 0.35), (130, 0.18))
_GRAIN = 3.0


def jpeg(width: int, height: int, seed: int) -> bytes:
    """A picture of smooth noise at several scales with some grain, 8 bits, 4:2:0, quality 90.

    About 2 bits a pixel, as photographs of that quality have; each seed gives another picture.
    """
    generator = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3), np.float32)
    for cells, weight in _OCTAVES:
        rows = max(2, cells * height // max(width, height))
        columns = max(2, cells * width // max(width, height))
        coarse = generator.normal(size=(rows, columns, 3)).astype(np.float32)
        picture += weight * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    grain = generator.normal(scale=_GRAIN, size=(height, width, 1))
    pixels = np.clip(128 + 48 * picture + grain, 0, 255).astype(np.uint8)
    _, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return bytes(encoded)
