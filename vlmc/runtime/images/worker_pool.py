"""Threads that prepare requests ahead of the model."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

THREAD_NAME = "vlmc-prepare"
# Decoding and resizing release the interpreter's lock, the rest does not: more threads only wait.
_MOST_THREADS = 16


def thread_count() -> int:
    """Threads of a pool: one a core, up to a limit."""
    return min(_MOST_THREADS, len(os.sched_getaffinity(0)))


class WorkerPool:
    """A pool that starts with its first work, and ends with `close`."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    def submit(self, work: Callable[[], None]) -> None:
        """Run `work`, which handles its own errors, on one of the threads."""
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(thread_count(), thread_name_prefix=THREAD_NAME)
            self._pool.submit(work)

    def close(self) -> None:
        """Drop what waits, and end the threads."""
        with self._lock:
            if self._pool is not None:
                own = threading.current_thread().name.startswith(THREAD_NAME)
                self._pool.shutdown(wait=not own, cancel_futures=True)
                self._pool = None
