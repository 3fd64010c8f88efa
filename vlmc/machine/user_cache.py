"""Folders of the user's caches: what may be lost and is made again."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from vlmc.files.atomic import make_private, write_atomically


def user_cache(name: str) -> Path:
    """The folder `name` in vlmc's part of `$XDG_CACHE_HOME`, else of `~/.cache`; not made here."""
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
    """Write a file whole, its folder for the user alone; a place that cannot be written to costs
    only the time to make it again."""
    with suppress(OSError):
        make_private(path.parent)
        write_atomically(path, data, mode=0o600)
