"""The tiles that a tower is calibrated on: some of each image's, cut as the recipe says."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from vlmc.errors import RecipeError
from vlmc.image.decode import ExifMode, Pixels, decode, image_size
from vlmc.image.preprocess import make_tiles
from vlmc.image.resize import Resampler
from vlmc.image.tiles import TileRule, choose_grid

TILES_AN_IMAGE = 2
"""More of one image tell little, and cost as much as another image's."""
# Between the darkest and the brightest value of any channel; JPEG noise on black stays below.
_LEAST_SPREAD = 16


class CalibrationTiles:
    """At most two tiles of each image, drawn by `seed`; images are decoded as they are asked for.

    Iterating again gives the same tiles, uint8 (448, 448, 3).
    """

    def __init__(
        self,
        images: Sequence[Path],
        rule: TileRule,
        *,
        resampler: Resampler,
        exif: ExifMode,
        seed: int,
    ) -> None:
        self._rule, self._resampler, self._exif = rule, resampler, exif
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
            tiles = make_tiles(decode(image, exif=self._exif), self._rule, self._resampler)
            yield from (tiles[index] for index in chosen)

    def check_spread(self) -> None:
        """Refuse a set of one colour, from which every range would be degenerate.

        Raises:
            RecipeError: the tiles hold hardly more than one value.
        """
        low, high = 255, 0
        for tile in self:
            low, high = min(low, int(tile.min())), max(high, int(tile.max()))
            if high - low >= _LEAST_SPREAD:
                return
        raise RecipeError(
            f"calibration.dataset: the {len(self)} tiles of {len(self._chosen)} images hold only "
            f"values between {low} and {high} of 255. The range of "
            "vision_model.embeddings.patch_embedding, and of every layer after it, would be "
            "degenerate. Give images like those that will be asked about."
        )
