"""Files and folders that appear whole or not at all, and their way to the disk."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def make_private(*folders: Path) -> None:
    """Create each folder for its owner alone, unless it exists; name the upper ones first."""
    for folder in folders:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)


@contextmanager
def atomic_path(path: Path, *, mode: int = 0o666) -> Iterator[Path]:
    """Yield a new, empty file beside `path`, and replace `path` with it when the block ends.

    A reader finds the old file or the new one, never a part, after a power failure too. If the
    block raises, the new file is removed and `path` stays as it was. A killed process leaves the
    new file behind; `remove_temporaries` finds it. `mode` is the permissions before the umask.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_atomically(path: Path, data: str | bytes, *, mode: int = 0o666) -> None:
    """Replace a file's content in one step, as `atomic_path`; text becomes UTF-8."""
    with atomic_path(path, mode=mode) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def remove_temporaries(path: Path) -> None:
    """Remove what killed writers of `path` left beside it; no writer may be running."""
    form = re.compile(re.escape(f".{path.name}.") + r"[0-9a-f]{8}\.tmp")
    for other in path.parent.iterdir():
        if form.fullmatch(other.name):
            other.unlink(missing_ok=True)


def move_into_place(folder: Path, target: Path) -> None:
    """Write a finished folder to the disk, then rename it to `target`, which must not exist.

    Its files get the usual permissions: safetensors writes for the owner alone.
    """
    probe = folder / f".{secrets.token_hex(4)}.tmp"
    probe.touch(exist_ok=False)
    mode = probe.stat().st_mode & 0o777
    probe.unlink()
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)
    sync_tree(folder)
    folder.rename(target)
    sync(target.parent)


def sync(path: Path) -> None:
    """Write a file's or a folder's own data to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Write a folder and everything in it to the disk."""
    for path in (*folder.rglob("*"), folder):
        sync(path)
