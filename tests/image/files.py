"""Image files made for tests."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

from PIL import Image

from tests.image.patterns import pattern


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG file with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with(content: bytes, *chunks: bytes) -> bytes:
    """A PNG file with more chunks behind its header."""
    header_end = 8 + 12 + 13
    return content[:header_end] + b"".join(chunks) + content[header_end:]


def turned(image: Image.Image, form: str = "JPEG", orientation: int = 6) -> bytes:
    """An image file with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, form, exif=exif)


def alike_at_first(folder: Path) -> list[Path]:
    """Two pictures whose files have the same size and the same first 100 kB."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = pattern(224, 224)
    paths = [folder / "one.bmp", folder / "two.bmp"]
    Image.fromarray(pixels).save(paths[0])
    pixels[:70] = 255 - pixels[:70]  # BMP begins with the lowest row
    Image.fromarray(pixels).save(paths[1])
    one, two = (path.read_bytes() for path in paths)
    if one[:100_000] != two[:100_000] or len(one) != len(two) or one == two:
        raise ValueError("the two files do not agree in their first bytes alone")
    return paths
