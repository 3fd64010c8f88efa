"""Kernels that TensorRT-RTX compiles for the card when an engine runs, kept for the next load."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from vlmc.machine.user_cache import read_private, user_cache, write_private


class KernelCache:
    """TensorRT-RTX's runtime cache of one engine on one card, in the user's cache folder.

    TensorRT-RTX itself checks version, card and driver of what it is given, and compiles again
    what does not fit.
    """

    def __init__(self, config: Any, key: dict[str, str]) -> None:
        """Let contexts made with `config` take kernels from the cache; `key` is all that decides
        what is compiled."""
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        self._path = user_cache("kernels") / f"{name}.bin"
        self._cache = config.create_runtime_cache()
        kept = read_private(self._path)
        if kept is not None:
            self._cache.deserialize(kept)
        config.set_runtime_cache(self._cache)
        self._kept_bytes = 0 if kept is None else len(kept)

    def save(self) -> None:
        """Keep what was compiled since."""
        data = bytes(memoryview(self._cache.serialize()))
        if len(data) != self._kept_bytes:
            write_private(self._path, data)
            self._kept_bytes = len(data)
