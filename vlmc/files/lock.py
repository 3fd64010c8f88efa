"""A lock by name that the kernel drops when its holder ends, however it ends."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# What a file system answers that has no locks: renames keep the cache whole there too.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextmanager
def locked(path: Path, *, shared: bool = False, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file `path`, which is made if need be; `waiting` is called before a wait.

    Without a lock where the folder is mounted to be read only: what is read is checked anyway.
    """
    try:
        descriptor = _take(path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, waiting)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        yield
        return
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock file `path` unless somebody else does; yields whether it is held."""

    def give_up() -> None:
        raise _HeldError

    try:
        descriptor = _take(path, fcntl.LOCK_EX, give_up)
    except _HeldError:
        yield False
        return
    try:
        yield True
        path.unlink(missing_ok=True)  # while it is held; see `_take`
    finally:
        os.close(descriptor)


class _HeldError(Exception):
    """Somebody else holds the lock."""


def _take(path: Path, kind: int, waiting: Callable[[], None]) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(descriptor, kind)
            # A lock on a file that its last holder removed would exclude nobody.
            if _is_at(descriptor, path):
                return descriptor
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return descriptor
            os.close(descriptor)
            raise
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
