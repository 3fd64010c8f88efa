"""PNG files whose colour profile or text unpacks to more than Pillow reads (1 MiB a chunk)."""

from __future__ import annotations

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Texts that can hold an orientation.
_KEPT = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")


def without_metadata(content: bytes) -> bytes:
    """A PNG without its colour profile and texts, which change no pixel.

    Texts that can hold an orientation are kept. What is not a PNG, or is cut short, is returned
    as far as it goes.
    """
    if not content.startswith(_SIGNATURE):
        return content
    parts, start = [_SIGNATURE], len(_SIGNATURE)
    while start < len(content):
        end = start + 12 + int.from_bytes(content[start : start + 4], "big")
        kind, body = content[start + 4 : start + 8], content[start + 8 : end]
        text = kind in (b"tEXt", b"zTXt", b"iTXt") and not body.startswith(_KEPT)
        if not text and kind != b"iCCP":
            parts.append(content[start:end])
        start = end
    return b"".join(parts)
