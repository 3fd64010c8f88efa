"""The last few values by an image's content: tiles, or features."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")

# Questions on one image follow each other; a request rarely has more images.
KEPT_IMAGES = 8


class ContentCache(Generic[Value]):
    """At most `capacity` values by digest; the one unused for longest is dropped first.

    Threads may share it.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
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
        """Keep a value, and drop another where there are too many."""
        with self._lock:
            self._values[digest] = value
            self._values.move_to_end(digest)
            while len(self._values) > self._capacity:
                self._values.popitem(last=False)

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
