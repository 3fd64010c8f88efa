"""Tiles and grids of the original `dynamic_preprocess`."""

from __future__ import annotations

import hashlib
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

MAXIMA = (1, 2, 4, 6, 12)
SIZES = (
    (480, 320),
    (800, 600),
    (1920, 1080),
    (448, 448),
    (4000, 500),
    (640, 480),
    (320, 240),
    (320, 480),
    (1000, 1000),
    (633, 633),
    (634, 634),
    (896, 448),
    (1080, 1440),
    (1, 1),
    (1, 5000),
    (5000, 1),
    (700, 600),  # midway between the ratios 1 and 4/3
    (1751, 1000),
    (35, 24),
)
RANDOM_SIZES = 150


@dataclass(slots=True)
class Canvas:
    """Stands for an image where only its size matters; notes what it is resized to."""

    size: tuple[int, int]
    resized: list[tuple[int, int]] = field(default_factory=list)

    def resize(self, size: tuple[int, int]) -> Canvas:
        self.resized.append(size)
        return self

    def crop(self, box: tuple[int, int, int, int]) -> Canvas:
        return self


def tiles(original: types.SimpleNamespace, images: Path) -> dict[str, list[Any]]:
    """`tiles`: hashes of the tiles of every picture; `grids`: the grid for many sizes."""
    files = sorted(path for path in images.rglob("*") if path.is_file() and path.suffix != ".py")
    rows = [
        _tiles(original, path, path.relative_to(images).as_posix(), maximum, thumbnail)
        for path in files
        for maximum in MAXIMA
        for thumbnail in ((True, False) if maximum == 6 else (True,))
    ]
    draws = [int(draw) for draw in np.random.PCG64(5).random_raw(2 * RANDOM_SIZES)]
    sizes = list(SIZES)
    sizes += [(1 + a % 3000, 1 + b % 3000) for a, b in zip(draws[::2], draws[1::2], strict=True)]
    limits = [(1, maximum) for maximum in (*MAXIMA, 24)] + [(7, 12), (2, 2)]
    grids = [[*size, *limit, *_grid(original, size, *limit)] for size in sizes for limit in limits]
    return {"tiles": rows, "grids": grids}


def _tiles(
    original: types.SimpleNamespace, path: Path, name: str, maximum: int, thumbnail: bool
) -> dict[str, Any]:
    image = Image.open(path).convert("RGB")
    parts = original.dynamic_preprocess(
        image, min_num=1, max_num=maximum, image_size=448, use_thumbnail=thumbnail
    )
    digest = hashlib.sha256()
    for part in parts:
        digest.update(np.asarray(part, dtype=np.uint8).tobytes())
    return {
        "image": name,
        "width": image.width,
        "height": image.height,
        "max_num": maximum,
        "thumbnail": thumbnail,
        "tiles": len(parts),
        "sha256": digest.hexdigest(),
    }


def _grid(
    original: types.SimpleNamespace, size: tuple[int, int], minimum: int, maximum: int
) -> tuple[int, int]:
    canvas = Canvas(size)
    original.dynamic_preprocess(canvas, min_num=minimum, max_num=maximum, image_size=448)
    width, height = canvas.resized[0]
    return width // 448, height // 448
