"""`resampler: opencv`: how close it stays to Pillow, and JPEGs decoded at a reduced scale."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.image.files import encoded, turned
from tests.image.patterns import pattern, scene
from vlmc.errors import ImageError
from vlmc.image.decode import ExifMode, decode, read_picture
from vlmc.image.preprocess import make_tiles, read_tiles
from vlmc.image.resize import KEPT_RESOLUTION, resize
from vlmc.image.source import Pixels
from vlmc.image.tiles import TileRule, choose_grid

ROOT = Path(__file__).parents[2]
PICTURES = [
    *sorted((ROOT / "recipes" / "quickstart" / "images").glob("eval-000?.jpg")),
    *sorted((ROOT / "tests" / "data" / "images").glob("*.jpg")),
]
RULES = [TileRule("original"), TileRule("native"), TileRule("native", max=2), TileRule("single")]
SINGLE = TileRule("single")


def difference(one: Pixels, other: Pixels) -> float:
    return float(np.abs(one.astype(np.int16) - other).mean())


@cache
def photo(width: int = 1792, height: int = 1536) -> Image.Image:
    return Image.fromarray(scene(width, height))


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_tiles_stay_close_to_pillow(rule: TileRule) -> None:
    """The bound of the whole pipeline: 1.0 of 255 on average, 1.5 on the worst picture."""
    found = [
        difference(read_tiles(path, rule, "pillow").tiles, read_tiles(path, rule, "opencv").tiles)
        for path in PICTURES
    ]
    assert len(found) >= 15
    assert np.mean(found) <= 1.0 and max(found) <= 1.5


def test_shrinking_is_pillows_filter() -> None:
    """Fine texture, which an area mean blurs and a filter without antialiasing turns to noise."""
    texture = np.random.default_rng(3).integers(0, 256, (480, 640, 3), np.uint8)
    for size in ((448, 448), (448, 896), (600, 100)):
        one, other = (resize(texture, *size, kind) for kind in ("pillow", "opencv"))
        assert difference(one, other) < 0.5
        assert other.flags.c_contiguous and other.flags.writeable


def test_pixels_that_must_not_be_written_to_are_read() -> None:
    image = scene(900, 700)
    image.flags.writeable = False
    one, other = (make_tiles(image, SINGLE, kind) for kind in ("pillow", "opencv"))
    assert difference(one, other) < 0.1


def test_thumbnail_of_a_large_image_is_close() -> None:
    image = scene(2000, 1500)
    one, other = (make_tiles(image, TileRule("original"), kind) for kind in ("pillow", "opencv"))
    assert len(one) == 13
    assert difference(one[-1], other[-1]) < 0.5


SAVED: dict[str, dict[str, Any]] = {
    "4:2:0": {"subsampling": 2},
    "4:2:2": {"subsampling": 1},
    "4:4:4": {"subsampling": 0},
    "progressive": {"progressive": True},
    "restart markers": {"restart_marker_rows": 2},
}


@pytest.mark.parametrize("kind", [*SAVED, "grey"])
def test_whole_jpegs_are_pillows_pixels(kind: str) -> None:
    """A JPEG that is not much larger than its tiles is decoded as `convert("RGB")` does."""
    image = Image.fromarray(pattern(640, 480))
    content = (
        encoded(image.convert("L"), "JPEG")
        if kind == "grey"
        else encoded(image, "JPEG", **SAVED[kind])
    )
    with Image.open(io.BytesIO(content)) as opened:
        expected = make_tiles(np.array(opened.convert("RGB")), TileRule("original"), "opencv")
    np.testing.assert_array_equal(
        read_tiles(content, TileRule("original"), "opencv").tiles, expected
    )


@pytest.mark.parametrize(
    ("size", "target", "scale"),
    [
        ((1792, 1344), (448, 336), 2),
        ((1792, 1792), (224, 224), 4),
        ((1792, 1792), (112, 112), 8),
        ((1440, 1792), (448, 448), 2),
        ((1432, 1792), (448, 448), 1),  # 1432 / 2 is less than 1.6 times 448
        ((1792, 1432), (448, 448), 1),
        ((1793, 1792), (448, 448), 1),  # odd
        ((1788, 1792), (112, 112), 4),  # 8 does not divide it
    ],
)
def test_scale_keeps_more_than_the_target(
    size: tuple[int, int], target: tuple[int, int], scale: int
) -> None:
    content = encoded(Image.new("RGB", size, (9, 8, 7)), "JPEG")
    picture = read_picture(content, target_size=lambda width, height: target)
    assert picture.pixels.shape == (size[1] // scale, size[0] // scale, 3)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("saved", [{}, {"progressive": True}], ids=["baseline", "progressive"])
def test_reduced_jpegs_stay_close_to_pillow(mode: str, saved: dict[str, bool]) -> None:
    content = encoded(photo().convert(mode), "JPEG", quality=90, **saved)
    one, other = (read_tiles(content, SINGLE, kind).tiles for kind in ("pillow", "opencv"))
    whole = make_tiles(decode(content), SINGLE, "opencv")
    assert not np.array_equal(other, whole), "was decoded at a reduced scale"
    assert difference(one, other) <= 1.0


def test_pillow_never_reduces() -> None:
    content = encoded(photo(), "JPEG")
    expected = make_tiles(decode(content), SINGLE, "pillow")
    np.testing.assert_array_equal(read_tiles(content, SINGLE, "pillow").tiles, expected)


@pytest.mark.parametrize("rule", [*RULES, TileRule("original", max=4), TileRule("native", max=5)])
def test_reduced_images_have_the_grid_of_whole_ones(rule: TileRule) -> None:
    sizes = np.random.default_rng(5).integers(50, 1000, (2000, 2)) * 8
    reduced = 0
    for width, height in sizes.tolist():
        grid = choose_grid(width, height, rule)
        kept = min(width / grid.columns, height / grid.rows) / 448 / KEPT_RESOLUTION
        for scale in (scale for scale in (2, 4, 8) if kept >= scale):
            assert choose_grid(width // scale, height // scale, rule) == grid
            reduced += 1
    assert reduced > 50


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("exif", ["ignore", "apply"])
def test_reduced_images_are_turned_as_whole_ones(orientation: int, exif: ExifMode) -> None:
    content = turned(photo(1792, 896), orientation=orientation)
    rule = TileRule("native", max=1)
    one, other = (read_tiles(content, rule, kind, exif=exif) for kind in ("pillow", "opencv"))
    assert one.notes == other.notes
    assert difference(one.tiles, other.tiles) <= 0.5


def test_callers_image_stays_whole() -> None:
    with Image.open(io.BytesIO(encoded(photo(), "JPEG"))) as image:
        read_tiles(image, SINGLE, "opencv")
        assert image.size == (1792, 1536)


@pytest.mark.parametrize("kind", ["CMYK", "PNG"])
def test_other_files_are_not_reduced(kind: str) -> None:
    content = (
        encoded(photo().convert("CMYK"), "JPEG")
        if kind == "CMYK"
        else encoded(photo(), "PNG", compress_level=1)
    )
    expected = make_tiles(decode(content), SINGLE, "opencv")
    np.testing.assert_array_equal(read_tiles(content, SINGLE, "opencv").tiles, expected)


@pytest.mark.parametrize("damage", ["cut", "header", "not an image"])
def test_errors_do_not_depend_on_the_resampler(damage: str) -> None:
    whole = encoded(photo(), "JPEG")
    content = {"cut": whole[:-2000], "header": whole[:300], "not an image": b"%PDF-1.7"}[damage]
    messages = []
    for kind in ("pillow", "opencv"):
        with pytest.raises(ImageError) as caught:
            read_tiles(content, SINGLE, kind, name="a.jpg")  # type: ignore[arg-type]
        messages.append(str(caught.value).partition("(")[0])
    assert messages[0] == messages[1]
