"""Calibration tiles follow the recipe's rules for pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.image.files import turned
from vlmc.compile.calibration.tiles import CalibrationTiles
from vlmc.image.decode import ExifMode
from vlmc.image.high_bit_depth import HighBitDepth
from vlmc.image.tiles import TileRule


@pytest.mark.parametrize(
    ("high_bit_depth", "exif", "corner"),
    [("original", "ignore", 255), ("scale", "ignore", 100), ("scale", "apply", 0)],
)
def test_calibration_tiles(
    high_bit_depth: HighBitDepth, exif: ExifMode, corner: int, tmp_path: Path
) -> None:
    deep = np.zeros((448, 448), np.uint16)
    deep[:100, :100] = 25_700  # at the left above, and turned at the right
    (tmp_path / "a.png").write_bytes(turned(Image.fromarray(deep), "PNG"))
    (tile,) = CalibrationTiles(
        [tmp_path / "a.png"],
        TileRule("single"),
        resampler="pillow",
        exif=exif,
        high_bit_depth=high_bit_depth,
        seed=0,
    )
    assert tile[0, 0, 0] == corner


def test_the_seed_chooses_the_tiles_of_an_image(images: Path) -> None:
    def chosen(seed: int) -> list[bytes]:
        tiles = CalibrationTiles(
            [images / "640x480.jpg"],
            TileRule("original"),
            resampler="pillow",
            exif="ignore",
            seed=seed,
        )
        return [tile.tobytes() for tile in tiles]

    assert chosen(0) == chosen(0)
    assert len({tuple(chosen(seed)) for seed in range(5)}) > 1
