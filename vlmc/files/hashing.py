"""SHA-256 of many files on all cores."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_sha256(sizes: Mapping[Path, int]) -> dict[Path, str]:
    """SHA-256 of every file, given the sizes in bytes.

    A thread a core, since hashlib releases the interpreter's lock while it computes. The largest
    files go first: a hash cannot be split, so the time is at least that of the largest file.

    Raises:
        OSError: a file cannot be read; `filename` says which.
    """
    threads = max(1, min(len(os.sched_getaffinity(0)), len(sizes)))
    largest_first = sorted(sizes, key=lambda path: (-sizes[path], path))
    with ThreadPoolExecutor(threads, thread_name_prefix="sha256") as pool:
        digests = pool.map(file_sha256, largest_first)
        return dict(zip(largest_first, digests, strict=True))
