"""Decoding: every mode as Pillow does it, and what must be refused."""

from __future__ import annotations

import contextlib
import io
import struct
import tracemalloc
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.image.patterns import pattern
from vlmc.errors import ImageError
from vlmc.image.decode import decode, image_size


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def as_pillow(content: bytes) -> np.ndarray[Any, Any]:
    with warnings.catch_warnings(), Image.open(io.BytesIO(content)) as image:
        warnings.simplefilter("ignore")
        return np.array(image.convert("RGB"))


def forged_png(width: int, height: int) -> bytes:
    """A PNG whose header announces more than its few bytes of pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


PHOTO = Image.fromarray(pattern(61, 43))
DEEP = Image.fromarray(
    (np.arange(61 * 43, dtype=np.uint32) * 25 % 65536).astype(np.uint16).reshape(43, 61)
)
ALPHA = Image.fromarray(np.dstack([pattern(61, 43), pattern(61, 43)[..., 1]]))
PALETTE = PHOTO.convert("P", palette=Image.Palette.ADAPTIVE)

MODES = {
    "jpeg": encoded(PHOTO, "JPEG", quality=90),
    "progressive jpeg": encoded(PHOTO, "JPEG", progressive=True, subsampling=0),
    "grey jpeg": encoded(PHOTO.convert("L"), "JPEG"),
    "cmyk jpeg": encoded(PHOTO.convert("CMYK"), "JPEG"),
    "png": encoded(PHOTO, "PNG"),
    "one bit": encoded(PHOTO.convert("1"), "PNG"),
    "grey": encoded(PHOTO.convert("L"), "PNG"),
    "grey and alpha": encoded(PHOTO.convert("LA"), "PNG"),
    "alpha": encoded(ALPHA, "PNG"),
    "palette": encoded(PALETTE, "PNG"),
    "palette with transparency": encoded(PALETTE, "PNG", transparency=bytes(range(200))),
    "palette with one transparent colour": encoded(PALETTE, "PNG", transparency=3),
    "16 bits": encoded(DEEP, "PNG"),
    "16 bits tiff": encoded(DEEP, "TIFF"),
    "float tiff": encoded(PHOTO.convert("F"), "TIFF"),
    "32 bits tiff": encoded(PHOTO.convert("I"), "TIFF"),
    "webp": encoded(ALPHA, "WEBP", lossless=True),
    "bmp": encoded(PHOTO, "BMP"),
    "animation": encoded(PALETTE, "GIF", save_all=True, append_images=[PALETTE.rotate(180)]),
    "one pixel": encoded(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG"),
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_decodes_as_pillow_converts_it(mode: str, tmp_path: Path) -> None:
    content = MODES[mode]
    path = tmp_path / "image"
    path.write_bytes(content)
    expected = as_pillow(content)
    for source in (content, path, str(path)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pixels = decode(source)
        assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous and pixels.flags.writeable
        np.testing.assert_array_equal(pixels, expected)
        assert image_size(source) == (pixels.shape[1], pixels.shape[0])


def turned_jpeg() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(PHOTO, "JPEG", exif=exif)


def test_exif_orientation_is_applied_only_when_asked() -> None:
    content = turned_jpeg()
    plain, turned = decode(content), decode(content, exif="apply")
    np.testing.assert_array_equal(plain, as_pillow(content))
    np.testing.assert_array_equal(turned, np.rot90(plain, -1))
    assert image_size(content) == (61, 43)
    assert image_size(content, exif="apply") == (43, 61)
    assert image_size(MODES["png"], exif="apply") == (61, 43)


def test_arrays_pass_through_and_are_checked() -> None:
    image = pattern(9, 7)
    assert decode(image) is image
    assert image_size(image) == (9, 7)
    np.testing.assert_array_equal(decode(image[:, ::-1]), image[:, ::-1])
    wrong_arrays: list[Any] = [
        image.astype(np.float32),
        image[..., 0],
        image[None],
        np.dstack([image, image[..., :1]]),
        image.transpose(2, 0, 1),
        image[:0],
    ]
    for wrong in wrong_arrays:
        with pytest.raises(ImageError):
            decode(wrong)
    with pytest.raises(ImageError, match="more than the limit of 62"):
        decode(image, pixel_limit=62)


@pytest.mark.parametrize("cut", [1, 10, 200, 1000, -2])
def test_truncated_files_are_refused(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    path.write_bytes(MODES["jpeg"][:cut])
    with pytest.raises(ImageError, match=r"cut\.jpg") as caught:
        decode(path)
    assert "leave it out" in str(caught.value)


@pytest.mark.parametrize("mode", ["png", "16 bits tiff", "webp", "animation", "bmp"])
def test_damaged_files_never_raise_anything_else(mode: str) -> None:
    content = bytearray(MODES[mode])
    generator = np.random.default_rng(1)
    for _ in range(150):
        damaged = bytearray(content)
        for place in generator.integers(0, len(content), 6):
            damaged[place] = int(generator.integers(0, 256))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with contextlib.suppress(ImageError):
                assert decode(bytes(damaged), pixel_limit=1_000_000).ndim == 3


def test_a_bomb_is_refused_from_its_header() -> None:
    content = forged_png(30_000, 30_000)
    tracemalloc.start()
    try:
        for look in (decode, image_size):
            with pytest.raises(ImageError, match=r"too large|more than the limit"):
                look(content)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    with pytest.raises(ImageError, match="5000x5000 pixels, more than the limit of 1,000,000"):
        decode(forged_png(5_000, 5_000), pixel_limit=1_000_000)


@pytest.mark.parametrize(
    ("content", "part"),
    [(b"", "empty"), (b"not an image at all", "not an image"), (b"\x00" * 5000, "not an image")],
)
def test_files_that_are_no_image_are_refused(content: bytes, part: str, tmp_path: Path) -> None:
    path = tmp_path / "room.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=part) as caught:
        decode(path)
    assert str(path) in str(caught.value)
    with pytest.raises(ImageError):
        decode(content)


def test_a_path_without_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        decode(tmp_path / "absent.jpg")
    with pytest.raises(ImageError, match="not a regular file"):
        decode(tmp_path)
    with pytest.raises(ImageError, match="cannot be read"):
        decode("a\0b.jpg")
    with pytest.raises(ImageError, match="<dict>"):
        decode({})  # type: ignore[arg-type]


def test_postscript_is_not_handed_to_an_interpreter() -> None:
    with pytest.raises(ImageError, match="not an image in a format"):
        decode(encoded(PHOTO, "EPS"))
