"""Tiles to calibrate on."""

from __future__ import annotations

from pathlib import Path

from vlmc.compile.calibration.tiles import CalibrationTiles
from vlmc.image.tiles import TileRule


def calibration_tiles(images: Path) -> CalibrationTiles:
    """Of the first three pictures."""
    return CalibrationTiles(
        sorted(images.glob("*.jpg"))[:3],
        TileRule("original"),
        resampler="opencv",
        exif="ignore",
        seed=0,
    )
