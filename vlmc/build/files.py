"""Files that are whole or absent, copies that share nothing, and full disks."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from vlmc.errors import BuildError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What a file system answers that cannot copy inside itself.
_NO_RANGES = (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF)
_CHUNK_BYTES = 1 << 30


def make_private(*folders: Path) -> None:
    """Make each folder, for its owner alone, unless it exists; name the upper ones first."""
    for folder in folders:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Write UTF-8 text so that a reader finds the old file or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        temporary.write_text(text, encoding="utf-8")
        sync(temporary)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Bring a file's or a folder's own data to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Bring a folder and everything in it to the disk."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's bytes; the copy shares no inode with the source.

    A hard link would be free, but then whoever edits an artifact edits the cache with it. The
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


def check_writable(folder: Path) -> None:
    """Raise BuildError unless files can be made in `folder`, or it in the nearest one above."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise BuildError(f"{nearest} cannot be written to; name another folder with -o")


@contextmanager
def explaining(what: str, folder: Path, advice: str) -> Iterator[None]:
    """Turn failures to read and write inside into a BuildError; a full disk is named as such.

    `what` begins the message, `folder` is written to, `advice` says how to get space.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        if not _is_full(error):
            raise BuildError(f"{what}: {_said(error)}") from error
        free = shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.exists())).free
        raise BuildError(
            f"{what}: the disk is full ({_said(error)}). {folder} has {free:,} bytes left; {advice}"
        ) from error


def _said(error: OSError | SafetensorError) -> str:
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    return error.strerror if error.filename is None else f"{error.strerror}, {error.filename}"


def _is_full(error: OSError | SafetensorError) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    found = re.search(r"os error (\d+)", str(error))  # as safetensors passes it on
    return found is not None and int(found[1]) in _FULL
