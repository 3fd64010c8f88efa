"""The hidden folder that an artifact grows in until it is whole."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def staging_folder(parent: Path, name: str) -> Iterator[Path]:
    """A new folder `.NAME.partial-XXXXXXXX` in `parent`, gone afterwards unless it was moved.

    Those that killed builds of the same name left are removed. Each build holds a lock on its
    own, which the kernel drops when it ends however it ends: a process id would be taken for
    alive, or for the own one, where containers or machines share the folder. On a file system
    that locks no folders, leftovers stay.
    """
    partial = parent / f".{name}.partial-{secrets.token_hex(4)}"
    with _locked(parent):
        for path in parent.iterdir():
            if _is_partial(path, name) and not _in_use(path):
                shutil.rmtree(path)
        partial.mkdir()
        descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        os.close(descriptor)


def _is_partial(path: Path, name: str) -> bool:
    form = re.escape(f".{name}.partial-") + "[0-9a-f]{8}"
    return bool(re.fullmatch(form, path.name)) and path.is_dir() and not path.is_symlink()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold `folder` against other builds, so that none is seen between its creation and lock."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _in_use(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)
