"""The last few values by an image's content: tiles, or features."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")

KEPT_TILE_BYTES = 64 << 20
KEPT_FEATURE_BYTES = 256 << 20
"""What is kept for further questions on the last images: about eight of the published rule's 13
tiles, or a hundred of one."""


class ContentCache(Generic[Value]):
    """Values of at most `budget` bytes together, by digest; the one unused for longest is dropped
    first, and the last one stays whatever its size.

    Threads may share it.
    """

    def __init__(self, budget: int, size_of: Callable[[Value], int]) -> None:
        """`size_of` says how many bytes a value takes."""
        self._budget, self._size_of = budget, size_of
        self._bytes = 0
        self._lock = threading.Lock()
        self._values: OrderedDict[bytes, Value] = OrderedDict()
        self._computing: dict[bytes, threading.Lock] = {}

    def get(self, digest: bytes) -> Value | None:
        """The value, which counts as used, or None."""
        with self._lock:
            if digest in self._values:
                self._values.move_to_end(digest)
            return self._values.get(digest)

    def put(self, digest: bytes, value: Value) -> None:
        """Keep a value, and drop others where they take too much."""
        with self._lock:
            if digest in self._values:
                self._bytes -= self._size_of(self._values.pop(digest))
            self._values[digest] = value
            self._bytes += self._size_of(value)
            while self._bytes > self._budget and len(self._values) > 1:
                _, dropped = self._values.popitem(last=False)
                self._bytes -= self._size_of(dropped)

    def get_or_compute(self, digest: bytes, compute: Callable[[], Value]) -> Value:
        """The value, computed and kept where it is missing; threads that miss it together wait for
        the first of them."""
        value = self.get(digest)
        if value is not None:
            return value
        with self._lock:
            own = self._computing.setdefault(digest, threading.Lock())
        with own:
            try:
                value = self.get(digest)
                if value is None:
                    value = compute()
                    self.put(digest, value)
            finally:
                with self._lock:
                    self._computing.pop(digest, None)
        return value
