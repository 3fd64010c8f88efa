"""Turn an image into the vision tower's input: tiles, then normalized pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vlmc.errors import UsageError
from vlmc.image.decode import ExifMode, ImageNote, read_picture
from vlmc.image.high_bit_depth import HighBitDepth
from vlmc.image.resize import KEPT_RESOLUTION, Resampler, resize
from vlmc.image.source import ImageSource, Pixels
from vlmc.image.tiles import TILE_SIZE, TileRule, choose_grid

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class TiledImage:
    """uint8 (T, 448, 448, 3), row by row, the thumbnail last; and what decoding left unused."""

    tiles: Pixels
    notes: frozenset[ImageNote]


def read_tiles(
    source: ImageSource,
    rule: TileRule,
    resampler: Resampler,
    *,
    exif: ExifMode = "ignore",
    high_bit_depth: HighBitDepth = "original",
    name: str | None = None,
) -> TiledImage:
    """Decode an image and cut it into tiles.

    With `pillow` the tiles equal the original's bit for bit. `opencv` decodes a JPEG that is much
    larger than its grid at a reduced scale.

    Raises:
        ImageError: see `read_picture`.
    """

    def canvas_size(width: int, height: int) -> tuple[int, int]:
        grid = choose_grid(width, height, rule)
        return grid.columns * TILE_SIZE, grid.rows * TILE_SIZE

    picture = read_picture(
        source,
        exif=exif,
        high_bit_depth=high_bit_depth,
        name=name,
        target_size=canvas_size if resampler == "opencv" else None,
    )
    return TiledImage(make_tiles(picture.pixels, rule, resampler), picture.notes)


def make_tiles(image: Pixels, rule: TileRule, resampler: Resampler) -> Pixels:
    """Cut uint8 (H, W, 3) into uint8 (T, 448, 448, 3), row by row, the thumbnail last."""
    height, width = image.shape[:2]
    grid = choose_grid(width, height, rule)
    columns, rows = grid.columns, grid.rows
    canvas = resize(image, columns * TILE_SIZE, rows * TILE_SIZE, resampler)
    tiles = np.empty((grid.tiles, TILE_SIZE, TILE_SIZE, 3), np.uint8)
    parts = canvas.reshape(rows, TILE_SIZE, columns, TILE_SIZE, 3).swapaxes(1, 2)
    tiles[: rows * columns].reshape(parts.shape)[...] = parts
    if grid.thumbnail:
        # A canvas that is smaller than the image holds all that the thumbnail can show.
        smaller = canvas.size < image.size and min(columns, rows) >= KEPT_RESOLUTION
        whole = canvas if smaller and resampler == "opencv" else image
        tiles[-1] = resize(whole, TILE_SIZE, TILE_SIZE, resampler)
    return tiles


def normalize(tiles: Pixels) -> npt.NDArray[np.float32]:
    """uint8 (T, 448, 448, 3) to float32 (T, 3, 448, 448), (x / 255 − mean) / std.

    Each step rounds to float32 in the order of torchvision's ToTensor and Normalize, so that the
    result equals theirs bit for bit.
    """
    if tiles.dtype != np.uint8 or tiles.ndim != 4 or tiles.shape[3] != 3:
        raise UsageError(
            f"tiles are {tiles.dtype} {tiles.shape}; normalize takes uint8 (T, 448, 448, 3)"
        )
    pixels = np.ascontiguousarray(tiles.transpose(0, 3, 1, 2)).astype(np.float32)
    pixels /= np.float32(255)
    pixels -= np.array(MEAN, np.float32)[:, None, None]
    pixels /= np.array(STD, np.float32)[:, None, None]
    return pixels
