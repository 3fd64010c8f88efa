"""Image files made for tests."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

from PIL import Image


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
