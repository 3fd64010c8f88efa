"""Read and write errors of a build, with what to do; a full disk is named as such."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from vlmc.errors import BuildError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_writable(folder: Path) -> None:
    """Raise BuildError unless files can be made in `folder`, or it in the nearest one above."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise BuildError(f"{nearest} cannot be written to; name another folder with -o")


@contextmanager
def explain_disk_errors(what: str, folder: Path, advice: str) -> Iterator[None]:
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
