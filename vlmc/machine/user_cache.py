"""Folders of the user's caches: files that can be lost and recomputed."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from vlmc.files.atomic import make_private, write_atomically


def user_cache(name: str) -> Path:
    """The folder `vlmc/NAME` in `$XDG_CACHE_HOME`, else in `~/.cache`; does not create it."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "vlmc" / name


def read_private(path: Path) -> bytes | None:
    """A file's bytes, if it and its folder are the user's own and nobody else can write there."""
    try:
        for place in (path.parent, path):
            status = place.stat()
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
