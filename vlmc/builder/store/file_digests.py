"""SHA-256 of source files, remembered so that a file of many gigabytes is read once."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from vlmc.files.atomic import make_private, write_atomically
from vlmc.files.hashing import file_sha256

# Placeholder in a plan for the digest of a file that was never read.
UNKNOWN = "unknown"
# A file may change again within a clock tick of its time stamp; one so young is not remembered.
_SETTLED_NS = 2_000_000_000


class FileDigests:
    """Digests by path, inode, size, and times of change, in a folder that builds share.

    The time of the inode's change is part of it, since a copy may set the other one back.
    """

    def __init__(self, folder: Path) -> None:
        """`folder` is the cache's, and is not touched before a digest is stored."""
        self._folder = folder / "digests"
        self._computed: dict[tuple[str, tuple[int, ...]], str] = {}

    def known(self, path: Path) -> str | None:
        """The file's digest if it is remembered and the file unchanged since; reads no data."""
        stamp = _stamp(path)
        computed = self._computed.get((str(path.resolve()), stamp))
        if computed is not None:
            return computed
        try:
            stored = json.loads(self._place(path).read_bytes())
            if tuple(stored["stamp"]) == stamp and stored["path"] == str(path.resolve()):
                return str(stored["sha256"])
        except (OSError, ValueError, KeyError, TypeError):
            # Absent, or cut by a crash of the machine: the file is read again.
            return None
        return None

    def digest(self, path: Path) -> str:
        """The file's digest, computed where it is not known.

        Raises:
            OSError: the file cannot be read.
        """
        known = self.known(path)
        if known is not None:
            return known
        stamp, before_ns = _stamp(path), time.time_ns()
        digest = file_sha256(path)
        if _stamp(path) == stamp:
            self._computed[(str(path.resolve()), stamp)] = digest
            if before_ns - max(stamp[-2:]) > _SETTLED_NS:
                self._store(path, stamp, digest)
        return digest

    def digests(self, paths: Iterable[Path]) -> dict[str, str]:
        """Digests by file name, several files at a time."""
        listed = list(paths)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return dict(zip((p.name for p in listed), pool.map(self.digest, listed), strict=True))

    def _store(self, path: Path, stamp: tuple[int, ...], digest: str) -> None:
        values = {"path": str(path.resolve()), "stamp": stamp, "sha256": digest}
        with suppress(OSError):  # a memory that cannot be kept costs time alone
            make_private(self._folder.parent, self._folder)
            write_atomically(self._place(path), json.dumps(values))

    def _place(self, path: Path) -> Path:
        name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()
        return self._folder / f"{name}.json"


def _stamp(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
