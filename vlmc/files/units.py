"""Bytes, seconds and long texts as people read them."""

from __future__ import annotations

import re

_UNITS = ("KiB", "MiB", "GiB", "TiB")


def bytes_text(size: int) -> str:
    """`1536` as `1.5 KiB`."""
    if size < 1024:
        return f"{size} B"
    amount, power = size / 1024, 0
    # What would be rounded to 1024.0 of a unit is 1.0 of the next one.
    while amount >= 1023.95 and power < len(_UNITS) - 1:
        amount, power = amount / 1024, power + 1
    return f"{amount:,.1f} {_UNITS[power]}"


def duration_text(seconds: float) -> str:
    """`0.5` as `0.5 s`, `90` as `1 min 30 s`, `5400` as `1 h 30 min`, `200000` as `2 d 8 h`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} d {hours} h"


def parse_duration(text: str) -> float:
    """`90`, `90s`, `30m`, `1h30m` or `2d` as seconds.

    Raises:
        ValueError: it is not that, or not above 0.
    """
    parts = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
    seconds = 0.0
    if parts is not None:
        units = (86400, 3600, 60, 1)
        seconds = sum(
            float(part or 0) * unit for part, unit in zip(parts.groups(), units, strict=True)
        )
    if seconds <= 0:
        raise ValueError(f"{text!r} is not a duration, such as 90s, 30m or 1h30m")
    return seconds


def shorten(text: str, limit: int = 200) -> str:
    """At most `limit` characters of a text of any length, from both of its ends."""
    if len(text) <= limit:
        return text
    head = limit * 3 // 5
    return f"{text[:head]}…{text[head + 1 - limit :]}"
