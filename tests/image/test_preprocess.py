"""Tiles and pixels against the published pipeline, bit for bit."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.image.patterns import pattern, scene
from vlmc.errors import UsageError
from vlmc.image.preprocess import MEAN, STD, make_tiles, normalize
from vlmc.image.resize import resize
from vlmc.image.tiles import TileRule, parse_tiles
from vlmc.models.vision.tower import normalize_tiles

PUBLISHED = json.loads(Path(__file__).with_name("published_tiles.json").read_text())["tiles"]


@pytest.mark.parametrize("case", PUBLISHED)
def test_pillow_tiles_are_the_published_ones(case: str) -> None:
    size, limit, thumbnail = case.split()
    width, height = map(int, size.split("x"))
    rule = parse_tiles(f"original:{limit},{thumbnail}", TileRule("original"))
    tiles = make_tiles(pattern(width, height), rule, "pillow")
    assert list(tiles.shape) == PUBLISHED[case]["shape"]
    assert hashlib.sha256(tiles.tobytes()).hexdigest() == PUBLISHED[case]["sha256"]


@pytest.mark.parametrize("resampler", ["pillow", "opencv"])
def test_tiles_lie_row_by_row_with_the_thumbnail_last(resampler: str) -> None:
    image = scene(700, 480)
    tiles = make_tiles(image, TileRule("original", max=6), resampler)  # type: ignore[arg-type]
    assert tiles.shape == (7, 448, 448, 3) and tiles.dtype == np.uint8
    canvas = resize(image, 3 * 448, 2 * 448, resampler)  # type: ignore[arg-type]
    for index in range(6):
        top, left = 448 * (index // 3), 448 * (index % 3)
        np.testing.assert_array_equal(tiles[index], canvas[top : top + 448, left : left + 448])
    thumbnail = resize(image, 448, 448, resampler)  # type: ignore[arg-type]
    np.testing.assert_array_equal(tiles[6], thumbnail)
    assert make_tiles(image, TileRule("single"), resampler).shape[0] == 1  # type: ignore[arg-type]


def test_pillow_resampler_is_image_resize() -> None:
    image = pattern(123, 77)
    for size in ((448, 448), (60, 200), (123, 77), (1, 1)):
        expected = np.asarray(Image.fromarray(image).resize(size))
        np.testing.assert_array_equal(resize(image, *size, "pillow"), expected)


CLOSENESS = [
    # width, height → width, height; allowed mean and 99th percentile of |difference| in levels
    ((640, 480), (1792, 1344), 0.3, 2),
    ((1000, 747), (1792, 1344), 0.3, 2),
    ((1920, 1200), (1344, 896), 0.35, 3),
    ((1920, 1200), (448, 448), 0.35, 3),
    ((300, 2000), (448, 1344), 0.3, 2),
]


@pytest.mark.parametrize(("old", "new", "mean", "percentile"), CLOSENESS)
def test_opencv_stays_close_to_pillow(
    old: tuple[int, int], new: tuple[int, int], mean: float, percentile: float
) -> None:
    image = scene(*old)
    reference = resize(image, *new, "pillow").astype(int)
    difference = np.abs(resize(image, *new, "opencv") - reference)
    assert difference.mean() <= mean
    assert np.percentile(difference, 99) <= percentile


def test_opencv_leaves_an_image_of_the_right_size_as_it_is() -> None:
    image = pattern(448, 448)
    np.testing.assert_array_equal(resize(image, 448, 448, "opencv"), image)
    # Along an axis that does not change, nothing is mixed.
    rows = np.repeat(pattern(1, 300), 200, axis=1)
    np.testing.assert_array_equal(resize(rows, 448, 300, "opencv")[:, :1], rows[:, :1])
    np.testing.assert_array_equal(resize(rows, 50, 300, "opencv")[:, :1], rows[:, :1])


def test_unknown_resampler_is_refused() -> None:
    with pytest.raises(UsageError, match="pillow, opencv"):
        resize(pattern(4, 4), 8, 8, "lanczos")  # type: ignore[arg-type]


def test_normalize_is_torchvision_to_the_bit() -> None:
    tiles = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    # ToTensor, then Normalize, in the torch operations they consist of.
    expected = torch.from_numpy(tiles).permute(0, 3, 1, 2).contiguous().to(torch.float32).div(255)
    expected.sub_(torch.tensor(MEAN).view(-1, 1, 1)).div_(torch.tensor(STD).view(-1, 1, 1))
    pixels = normalize(tiles)
    assert pixels.dtype == np.float32 and pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels.view(np.uint32), expected.numpy().view(np.uint32))


# Value of a channel → (x / 255 − mean) / deviation of red, green and blue, to five digits. The
# means are 0.485, 0.456, 0.406 and the deviations 0.229, 0.224, 0.225, of ImageNet.
NORMALIZED = {
    0: (-2.11790, -2.03571, -1.80444),
    1: (-2.10078, -2.01821, -1.78702),
    128: (0.07406, 0.20518, 0.42649),
    255: (2.24891, 2.42857, 2.64000),
}


@pytest.mark.parametrize("value", NORMALIZED)
def test_pixels_have_the_recorded_mean_and_deviation(value: int) -> None:
    """A third digit of any constant moves one of these by 0.002 or more."""
    assert (MEAN, STD) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    tiles = np.full((1, 448, 448, 3), value, np.uint8)
    by_array = normalize(tiles)[0, :, 7, 9]
    by_tensor = normalize_tiles(torch.from_numpy(tiles), torch.float32)[0, :, 7, 9]
    for found in (by_array, by_tensor.numpy()):
        np.testing.assert_allclose(found, NORMALIZED[value], rtol=0, atol=2e-5)


def test_normalize_takes_tiles_alone() -> None:
    for wrong in (np.zeros((1, 8, 8, 3), np.float32), np.zeros((8, 8, 3), np.uint8)):
        with pytest.raises(UsageError, match="takes uint8"):
            normalize(wrong)  # type: ignore[arg-type]
