"""Which files hold an image, by name and by their first bytes."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from vlmc.distribution import install_command
from vlmc.errors import ImageError

# Pillow's readers that decode in the process. Left out are those that start another program
# (EPS runs Ghostscript) and those of vector and container files.
# fmt: off
FORMATS = (
    "AVIF", "BMP", "DDS", "DIB", "GIF", "ICNS", "ICO", "JPEG", "JPEG2000", "MPO", "MSP", "PCX",
    "PNG", "PPM", "PSD", "QOI", "SGI", "SUN", "TGA", "TIFF", "WEBP", "XBM", "XPM",
)
IMAGE_SUFFIXES = frozenset({
    ".apng", ".avif", ".bmp", ".gif", ".heic", ".heif", ".hif", ".j2k", ".jfif", ".jp2", ".jpe",
    ".jpeg", ".jpg", ".jxl", ".mpo", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif",
    ".tiff", ".webp",
})
"""A file of such a name is an image, or a damaged one."""
RAW_SUFFIXES = frozenset({
    ".3fr", ".arw", ".cr2", ".cr3", ".dcr", ".dng", ".erf", ".kdc", ".mef", ".mos", ".nef", ".nrw",
    ".orf", ".pef", ".raf", ".raw", ".rw2", ".sr2", ".srf", ".srw",
})
"""Camera raw files, many of which are TIFF files whose first image is a thumbnail."""
# fmt: on
HEADER_BYTES = 64
# Their first bytes begin no other file; those of the rest begin texts too, such as P and y.
_CERTAIN = {"AVIF", "GIF", "JPEG", "JPEG2000", "PNG", "PSD", "TIFF", "WEBP"}
_HEVC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_OTHERS = (
    (b"\xff\x0a", "a JPEG XL image, which cannot be read"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image, which cannot be read"),
    (b"%PDF", "a PDF file, not an image"),
    (b"<!doctype html", "a web page, not an image"),
    (b"<html", "a web page, not an image"),
    (b"<svg", "an SVG drawing, which has no pixels"),
    (b"<?xml", "an XML file, not an image with pixels"),
    (b"version https://git-lfs", "a Git LFS pointer; run git lfs pull"),
)


@cache
def readable_formats() -> list[str]:
    """Those of `FORMATS` that this Pillow was built with."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def read_header(path: Path) -> bytes:
    """The first bytes of a file; `OSError` where it cannot be read."""
    with path.open("rb", buffering=0) as file:
        return file.read(HEADER_BYTES)


def looks_like_image(path: Path) -> bool:
    """Whether a regular file begins as an image that can be read, or that an extra can read.

    Reads the file's first bytes, and its header where those leave doubt. Decodes nothing.

    Raises:
        OSError: the file cannot be read.
    """
    return _begins_as_image(read_header(path), path)


def content_looks_like_image(content: bytes) -> bool:
    """As `looks_like_image`, of a file's content."""
    return _begins_as_image(content[:HEADER_BYTES], io.BytesIO(content))


def _begins_as_image(header: bytes, file: Path | BinaryIO) -> bool:
    if is_heif(header) or not header:
        return bool(header)
    # Pillow's checks take 16 bytes for granted.
    prefix = header[:16].ljust(16, b"\0")
    possible = []
    for name in readable_formats():
        accept = Image.OPEN[name][1]
        # TGA has no first bytes of its own: such files are known by name alone.
        if accept is not None and accept(prefix) is True:
            possible.append(name)
    if _CERTAIN & set(possible):
        return True
    return bool(possible) and _opens(file, possible)


def _opens(file: Path | BinaryIO, formats: list[str]) -> bool:
    try:
        with Image.open(file, formats=formats):
            return True
    except Image.DecompressionBombError:
        return True
    except Exception:  # readers raise almost anything
        return False


def is_heif(header: bytes) -> bool:
    """Whether a file is HEIF with HEVC inside, as `.heic` files are."""
    if header[4:8] != b"ftyp":
        return False
    end = min(int.from_bytes(header[:4], "big"), len(header))
    brands = {header[start : start + 4] for start in (8, *range(16, end - 3, 4))}
    return bool(brands & _HEVC_BRANDS)


@cache
def register_heif() -> None:
    """Add Pillow's reader of HEIF.

    Raises:
        ImageError: the package is missing; names the extra that installs it.
    """
    try:
        import pillow_heif
    except ImportError as error:
        raise ImageError(
            f"HEIC images need pillow-heif ({error}). Install it: {install_command('heif')}. Or "
            "convert the images to JPEG."
        ) from error
    pillow_heif.register_heif_opener()


def other_kind(header: bytes) -> str:
    """What a file that is not a readable image is."""
    begin = header.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for start, kind in _OTHERS:
        if header.startswith(start) or begin.startswith(start):
            return f"is {kind}"
    return (
        "is not an image in a format that can be read; convert it to JPEG or PNG, or leave it out"
    )
