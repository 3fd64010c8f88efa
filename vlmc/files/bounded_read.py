"""Files that others wrote: read whole into bounded memory, or refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path

# Configurations and manifests are a thousandth of this; parsing takes up to thirty times as much.
MAX_BYTES = 4 << 20


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
