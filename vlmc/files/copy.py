"""Copies of files that share nothing with the source."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

# What a file system answers that cannot copy inside itself.
_NO_RANGES = (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF)
_CHUNK_BYTES = 1 << 30


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's bytes; the copy shares no inode with the source.

    A hard link would be free, but then editing an artifact would edit the cache too. The
    kernel's own copy costs no space where the file system can share blocks until one is written.
    """
    with source.open("rb") as reader, target.open("wb") as writer:
        try:
            while os.copy_file_range(reader.fileno(), writer.fileno(), _CHUNK_BYTES):
                pass
            return
        except OSError as error:
            if error.errno not in _NO_RANGES:
                raise
        reader.seek(0)
        writer.seek(0)
        writer.truncate()
        shutil.copyfileobj(reader, writer, 1 << 20)
