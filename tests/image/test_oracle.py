"""Grids and tiles of pictures against those that the original implementation recorded."""

from __future__ import annotations

import hashlib

import pytest

from tests import oracle
from vlmc.image.decode import decode, image_size
from vlmc.image.preprocess import make_tiles
from vlmc.image.tiles import TileRule, choose_grid


def test_grids_are_the_recorded_ones() -> None:
    wrong = []
    for grid in oracle.grids():
        rule = TileRule("original", min=grid.min_num, max=grid.max_num)
        chosen = choose_grid(grid.width, grid.height, rule)
        if (chosen.columns, chosen.rows) != (grid.columns, grid.rows):
            wrong.append((grid, chosen))
    assert not wrong


@pytest.mark.parametrize("image", sorted({tiles.image for tiles in oracle.tiles()}))
def test_tiles_of_pictures_are_the_recorded_ones(image: str) -> None:
    pixels = decode(oracle.IMAGES / image)
    for expected in (tiles for tiles in oracle.tiles() if tiles.image == image):
        assert image_size(oracle.IMAGES / image) == (expected.width, expected.height)
        rule = TileRule("original", max=expected.max_num, thumbnail=expected.thumbnail)
        made = make_tiles(pixels, rule, "pillow")
        assert len(made) == expected.tiles, expected
        assert hashlib.sha256(made.tobytes()).hexdigest() == expected.sha256, expected
