"""Files that others wrote: read whole into bounded memory, or refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path

# Configurations and manifests are a thousandth of this; parsing takes up to thirty times as much.
MAX_BYTES = 4 << 20
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


class LfsPointerError(ValueError):
    """A file that Git LFS has elsewhere."""


def read_bytes(path: Path, max_bytes: int, *, follow_links: bool = True) -> bytes:
    """The bytes of a plain file of at most `max_bytes`.

    Raises:
        OSError: the file cannot be read, or is a link while links are not followed.
        ValueError: it is not a plain file, too large, or a Git LFS pointer; says what is wrong
            and not where.
    """
    # Without O_NONBLOCK a named pipe would wait for its writer for ever.
    flags = os.O_RDONLY | os.O_NONBLOCK | (0 if follow_links else os.O_NOFOLLOW)
    with os.fdopen(os.open(path, flags), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is not a plain file")
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ValueError(f"it is larger than {max_bytes:,} bytes")
    refuse_lfs_pointer(data)
    return data


def refuse_lfs_pointer(head: bytes) -> None:
    """Refuse a file that begins with these bytes if Git LFS has it elsewhere.

    Raises:
        LfsPointerError: says how to get the file.
    """
    if head.startswith(_LFS_POINTER):
        raise LfsPointerError(
            "it is a Git LFS pointer and not the file itself; run `git lfs pull` in its repository"
        )
