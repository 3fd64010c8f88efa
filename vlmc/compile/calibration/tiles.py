"""Tiles for calibration, sampled from each image's tiles under the recipe's tile rule."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from vlmc.errors import RecipeError
from vlmc.image.decode import ExifMode, image_size
from vlmc.image.high_bit_depth import HighBitDepth
from vlmc.image.preprocess import read_tiles
from vlmc.image.resize import Resampler
from vlmc.image.source import Pixels
from vlmc.image.tiles import TileRule, choose_grid

TILES_AN_IMAGE = 2
"""More tiles of one image add little, and cost as much as tiles of another image."""
# Minimum difference between the brightest and darkest value; JPEG noise on black stays below it.
_LEAST_SPREAD = 16


class CalibrationTiles:
    """At most two tiles of each image, chosen by `seed`. Images are decoded during iteration.

    Every iteration yields the same uint8 tiles (448, 448, 3).
    """

    def __init__(
        self,
        images: Sequence[Path],
        rule: TileRule,
        *,
        resampler: Resampler,
        exif: ExifMode,
        high_bit_depth: HighBitDepth = "original",
        seed: int,
    ) -> None:
        self._rule, self._resampler = rule, resampler
        self._exif, self._high_bit_depth = exif, high_bit_depth
        draw = random.Random(seed)
        self._chosen: list[tuple[Path, list[int]]] = []
        for image in images:
            count = choose_grid(*image_size(image, exif=exif), rule).tiles
            chosen = sorted(draw.sample(range(count), min(count, TILES_AN_IMAGE)))
            self._chosen.append((image, chosen))

    def __len__(self) -> int:
        return sum(len(chosen) for _, chosen in self._chosen)

    def __iter__(self) -> Iterator[Pixels]:
        for image, chosen in self._chosen:
            tiles = read_tiles(
                image,
                self._rule,
                self._resampler,
                exif=self._exif,
                high_bit_depth=self._high_bit_depth,
            ).tiles
            yield from (tiles[index] for index in chosen)

    def check_spread(self) -> None:
        """Check that the tiles do not have a single colour, which makes every range degenerate.

        Raises:
            RecipeError: the tiles' values are almost equal.
        """
        low, high = 255, 0
        for tile in self:
            low, high = min(low, int(tile.min())), max(high, int(tile.max()))
            if high - low >= _LEAST_SPREAD:
                return
        raise RecipeError(
            f"calibration.dataset: the {len(self)} tiles of {len(self._chosen)} images have only "
            f"values between {low} and {high} of 255. The range of "
            "vision_model.embeddings.patch_embedding, and of every layer after it, would be "
            "degenerate. Use images like those in production."
        )
