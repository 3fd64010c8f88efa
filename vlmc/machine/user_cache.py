"""Private files in the user's cache folder, which can be deleted at any time."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from vlmc.files.atomic import make_private, write_atomically


def user_cache(name: str) -> Path:
    """The path `vlmc/<name>` below `$XDG_CACHE_HOME` or `~/.cache`. Does not create it."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "vlmc" / name


def read_private(path: Path) -> bytes | None:
    """The file's content, or None unless only this user can write to it and its folder."""
    try:
        for checked in (path.parent, path):
            status = checked.stat()
            if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return None
        return path.read_bytes()
    except OSError:
        return None


def write_private(path: Path, data: bytes) -> None:
    """Replace a private file in one step. Where that fails, the file is recomputed next time."""
    with suppress(OSError):
        make_private(path.parent)
        write_atomically(path, data, mode=0o600)
