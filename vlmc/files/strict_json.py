"""JSON that means one thing: read into bounded memory or refused, written the same every time."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from vlmc.files.bounded_read import MAX_BYTES, read_bytes


def read_json(path: Path, max_bytes: int = MAX_BYTES, *, follow_links: bool = True) -> Any:
    """The value in a JSON file; as `read_bytes` and `parse_json`."""
    return parse_json(read_bytes(path, max_bytes, follow_links=follow_links))


def write_json(path: Path, values: object) -> None:
    """Write JSON with sorted keys, the same bytes for the same values."""
    path.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def parse_json(data: bytes) -> Any:
    """The value of UTF-8 JSON in which no key is given twice.

    Readers differ in which of two equal keys they take, so a file with such means nothing.

    Raises:
        ValueError: it is not that.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 text ({error.reason} at {error.start})") from error
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except (json.JSONDecodeError, _TwiceError):
        raise
    except ValueError as error:  # of int(), about Python's settings
        raise ValueError("it holds a number of thousands of digits") from error


class _TwiceError(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise _TwiceError(f"it gives the key {twice[:100]!r} twice")
    return values
