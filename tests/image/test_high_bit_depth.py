"""Grey pictures of more than 8 bits: clipped as in the original, or scaled."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.image.files import encoded, turned
from tests.image.patterns import pattern
from vlmc.image.decode import decode, read_picture

ALL_LEVELS = np.arange(65536, dtype=np.uint16).reshape(256, 256)
WHOLE = {
    "png": encoded(Image.fromarray(ALL_LEVELS), "PNG"),
    "tiff": encoded(Image.fromarray(ALL_LEVELS), "TIFF"),
    "big-endian tiff": encoded(Image.fromarray(ALL_LEVELS.astype(">u2")), "TIFF"),
    "packed tiff": encoded(Image.fromarray(ALL_LEVELS), "TIFF", compression="tiff_lzw"),
    "jpeg 2000": encoded(Image.fromarray(ALL_LEVELS), "JPEG2000"),
    "pgm": b"P5 256 256 65535\n" + ALL_LEVELS.astype(">u2").tobytes(),
    "32 bits tiff": encoded(Image.fromarray(ALL_LEVELS.astype(np.int32)), "TIFF"),
}


def float_tiff(values: npt.ArrayLike) -> bytes:
    return encoded(Image.fromarray(np.atleast_2d(np.asarray(values, np.float32))), "TIFF")


@pytest.mark.parametrize("form", WHOLE)
def test_whole_numbers(form: str) -> None:
    clipped = read_picture(WHOLE[form])
    np.testing.assert_array_equal(clipped.pixels[..., 1], np.minimum(ALL_LEVELS, 255))
    assert clipped.notes == {"clipped_to_8_bits"}
    scaled = read_picture(WHOLE[form], high_bit_depth="scale")
    expected = (ALL_LEVELS.astype(np.int64) + 128) // 257
    assert scaled.pixels.dtype == np.uint8 and scaled.pixels.shape == (256, 256, 3)
    for channel in range(3):
        np.testing.assert_array_equal(scaled.pixels[..., channel], expected)
    assert scaled.notes == set()


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        ([0.0, 0.25, 0.5, 1.0], [0, 64, 128, 255]),
        ([0.5, 0.5], [128, 128]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([0.0, 50.0, 200.0], [0, 64, 255]),
        ([7.0, 7.0], [0, 0]),
        ([np.nan, 0.0, 1.0, np.inf, -np.inf], [0, 0, 255, 255, 0]),
        ([np.nan, np.nan], [0, 0]),
        ([-3e38, 0.0, 3e38], [0, 128, 255]),
    ],
)
def test_floats_are_scaled(values: list[float], levels: list[int]) -> None:
    found = decode(float_tiff(values), high_bit_depth="scale")
    assert found[0, :, 0].tolist() == levels


def test_floats_are_clipped_by_default() -> None:
    picture = read_picture(float_tiff([-5.0, 0.9, 17.0, 300.0]))
    assert picture.pixels[0, :, 2].tolist() == [0, 0, 17, 255]
    assert picture.notes == {"clipped_to_8_bits"}


def test_32_bit_numbers_beyond_16_bits_are_scaled_by_their_own_range() -> None:
    signed = Image.fromarray(np.array([[-1000, 0, 1000]], np.int32))
    found = decode(encoded(signed, "TIFF"), high_bit_depth="scale")
    assert found[0, :, 0].tolist() == [0, 128, 255]


def test_other_pictures_are_not_scaled() -> None:
    photo = Image.fromarray(pattern(61, 43))
    for image in (photo, photo.convert("L"), photo.convert("1"), photo.convert("CMYK")):
        content = encoded(image, "TIFF")
        picture = read_picture(content, high_bit_depth="scale")
        np.testing.assert_array_equal(picture.pixels, decode(content))
        assert read_picture(content).notes == set()


def test_turned_pictures_are_scaled_and_turned() -> None:
    content = turned(Image.fromarray(ALL_LEVELS[:, :40]), "PNG")
    plain = decode(content, high_bit_depth="scale")
    upright = decode(content, high_bit_depth="scale", exif="apply")
    np.testing.assert_array_equal(upright, np.rot90(plain, -1))
    both = read_picture(content)
    assert both.notes == {"rotation_ignored", "clipped_to_8_bits"}
