"""Files that others wrote, and JSON in them: read whole into bounded memory, or refused."""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from pathlib import Path
from typing import Any

# Configurations and manifests are a thousandth of this; parsing takes up to thirty times as much.
MAX_BYTES = 4 << 20


def read_json(path: Path, max_bytes: int = MAX_BYTES, *, follow_links: bool = True) -> Any:
    """The value in a JSON file; as `read_bytes` and `parse_json`."""
    return parse_json(read_bytes(path, max_bytes, follow_links=follow_links))


def read_bytes(path: Path, max_bytes: int, *, follow_links: bool = True) -> bytes:
    """The bytes of a plain file of at most `max_bytes`.

    Raises:
        OSError: the file cannot be read, or is a link while links are not followed.
        ValueError: it is no plain file or too large; says what is wrong and not where.
    """
    # Without O_NONBLOCK a named pipe would wait for its writer for ever.
    flags = os.O_RDONLY | os.O_NONBLOCK | (0 if follow_links else os.O_NOFOLLOW)
    with os.fdopen(os.open(path, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is no plain file")
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ValueError(f"it is larger than {max_bytes:,} bytes")
    return data


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
