"""Decoding: every mode as Pillow does it, and what must be refused."""

from __future__ import annotations

import contextlib
import io
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.image.files import encoded, png_chunk, png_with, turned
from tests.image.patterns import pattern
from vlmc.errors import ImageError
from vlmc.image.decode import ExifMode, decode, image_size, read_picture


def as_pillow(content: bytes) -> np.ndarray[Any, Any]:
    with warnings.catch_warnings(), Image.open(io.BytesIO(content)) as image:
        warnings.simplefilter("ignore")
        return np.array(image.convert("RGB"))


def forged_png(width: int, height: int) -> bytes:
    """A PNG whose header announces more than its few bytes of pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + png_chunk(b"IEND", b"")
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


def test_exif_orientation_is_applied_only_when_asked() -> None:
    content = turned(PHOTO)
    plain, upright = decode(content), decode(content, exif="apply")
    np.testing.assert_array_equal(plain, as_pillow(content))
    np.testing.assert_array_equal(upright, np.rot90(plain, -1))
    assert image_size(content) == (61, 43)
    assert image_size(content, exif="apply") == (43, 61)
    assert image_size(MODES["png"], exif="apply") == (61, 43)


@pytest.mark.parametrize(
    ("form", "orientation", "exif", "notes"),
    [
        ("JPEG", 6, "ignore", {"rotation_ignored"}),
        ("JPEG", 2, "ignore", {"rotation_ignored"}),
        ("PNG", 8, "ignore", {"rotation_ignored"}),
        ("WEBP", 3, "ignore", {"rotation_ignored"}),
        ("JPEG", 6, "apply", set()),
        ("JPEG", 1, "ignore", set()),
        ("JPEG", 0, "ignore", set()),
        ("TIFF", 6, "ignore", set()),  # Pillow's reader has turned it
    ],
)
def test_ignored_rotations_are_noted(
    form: str, orientation: int, exif: ExifMode, notes: set[str]
) -> None:
    picture = read_picture(turned(PHOTO, form, orientation), exif=exif)
    assert picture.notes == notes
    assert picture.pixels.shape == (
        (61, 43, 3) if exif != "ignore" or form == "TIFF" else (43, 61, 3)
    )


def test_damaged_exif_data_leaves_the_pixels() -> None:
    content = bytearray(turned(PHOTO))
    start = content.index(b"Exif\0\0") + 6
    content[start : start + 14] = b"\xff" * 14
    assert read_picture(bytes(content)).notes == set()


def large_png(*kinds: bytes) -> bytes:
    packed = zlib.compress(b"x" * 3_000_000)
    bodies = {
        b"iCCP": b"profile\0\0" + packed,
        b"zTXt": b"Comment\0\0" + packed,
        b"iTXt": b"Comment\0\1\0\0\0" + packed,
        b"XMP": b"XML:com.adobe.xmp\0\1\0\0\0" + packed,
    }
    chunks = [png_chunk(b"iTXt" if kind == b"XMP" else kind, bodies[kind]) for kind in kinds]
    return png_with(MODES["png"], *chunks)


@pytest.mark.parametrize("kinds", [(b"iCCP",), (b"zTXt",), (b"iTXt",), (b"zTXt", b"iCCP")])
def test_pngs_with_large_metadata_are_read(kinds: tuple[bytes, ...], tmp_path: Path) -> None:
    content = large_png(*kinds)
    with pytest.raises(ValueError, match="MAX_TEXT"):
        as_pillow(content)
    path = tmp_path / "a.png"
    path.write_bytes(content)
    for source in (content, path):
        np.testing.assert_array_equal(decode(source), pattern(61, 43))
        assert image_size(source) == (61, 43)


def test_metadata_that_may_turn_the_picture_is_not_dropped() -> None:
    with pytest.raises(ImageError, match=r"text or colour profile unpacks to more .* remove the"):
        decode(large_png(b"XMP"))
    exif = Image.Exif()
    exif[0x0112] = 6
    body = png_chunk(b"eXIf", exif.tobytes()[6:])
    small = png_with(large_png(b"iCCP"), body)
    assert decode(small, exif="apply").shape == (61, 43, 3)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"<!DOCTYPE html><title>404</title>", "a web page"),
        (b"\xef\xbb\xbf\n<HTML><body>", "a web page"),
        (b"%PDF-1.7", "a PDF file"),
        (b"\xff\x0a" + bytes(40), "a JPEG XL image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer; run git lfs pull"),
    ],
)
def test_files_of_other_kinds_are_called_by_their_kind(content: bytes, part: str) -> None:
    with pytest.raises(ImageError, match=f"is {part}"):
        decode(content)


def test_nothing_is_written_to_the_terminal(tmp_path: Path) -> None:
    """By a process of its own, since pytest collects warnings and libtiff writes past Python."""
    tiff = bytearray(encoded(PHOTO, "TIFF", compression="tiff_lzw"))
    tiff[60:200] = b"\xff" * 140
    samples = bytearray(encoded(PHOTO, "TIFF"))
    entry = samples.index(struct.pack("<HHI", 277, 3, 1))  # SamplesPerPixel, a short
    samples[entry + 8] = 200
    exif = bytearray(turned(PHOTO))
    exif[exif.index(b"Exif\0\0") + 14] = 200
    named = {
        "damaged.tif": bytes(tiff),
        "palette.png": MODES["palette with transparency"],
        "large.png": forged_png(12_000, 10_000),  # between Pillow's warning and its refusal
        "exif.jpg": bytes(exif),
        "samples.tif": bytes(samples),  # an error of Pillow's logger
        "cut.tif": encoded(PHOTO, "TIFF")[:-300],
    }
    for name, content in named.items():
        (tmp_path / name).write_bytes(content)
    program = (
        "import sys, pathlib\n"
        "from vlmc.errors import ImageError\n"
        "from vlmc.image.decode import decode\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    try: decode(path)\n"
        "    except ImageError: print(path.name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", program, tmp_path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert done.stdout.split() == ["cut.tif", "damaged.tif", "large.png", "samples.tif"]


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
    with pytest.raises(ImageError, match="<float>"):
        decode(1.5)  # type: ignore[arg-type]


def test_postscript_is_not_handed_to_an_interpreter() -> None:
    with pytest.raises(ImageError, match="not an image in a format"):
        decode(encoded(PHOTO, "EPS"))
