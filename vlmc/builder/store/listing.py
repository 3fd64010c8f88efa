"""What the cache of build steps holds, as lines and as JSON."""

from __future__ import annotations

import time
from typing import Any

from vlmc.builder.store.step_cache import StepCache


def cache_lines(cache: StepCache) -> list[str]:
    """A line for each step, and one for the whole."""
    entries = cache.entries()
    lines = [
        f"{entry.name:<20} {entry.key[:12]} {entry.bytes:>16,} bytes {entry.seconds:>9.1f} s "
        f"{(time.time() - entry.created) / 86_400:>7.1f} days old"
        for entry in entries
    ]
    size = sum(entry.bytes for entry in entries)
    return [*lines, f"{cache.folder}: {len(entries)} steps, {size:,} bytes"]


def cache_json(cache: StepCache) -> dict[str, Any]:
    """The folder and its steps, `created` and `used` in seconds since 1970."""
    return {
        "folder": str(cache.folder),
        "steps": [
            {
                "name": entry.name,
                "key": entry.key,
                "bytes": entry.bytes,
                "seconds": entry.seconds,
                "peak_memory_bytes": entry.peak_memory_bytes,
                "created": entry.created,
                "used": cache.used(entry.key),
                "ingredients": entry.key_parts,
            }
            for entry in cache.entries()
        ],
    }
