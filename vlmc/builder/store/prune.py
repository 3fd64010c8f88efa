"""Make room in the cache: what was not used for long, what is too much, what is damaged."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from vlmc.builder.store.disk_errors import explain_disk_errors
from vlmc.builder.store.step_cache import CachedStep, Damage, StepCache

_ADVICE = "free some space there by hand."


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was removed: whole entries, keys of damaged ones, and halves that killed builds left."""

    entries: tuple[CachedStep, ...]
    damaged: tuple[str, ...]
    leftovers: int
    kept: int

    @property
    def bytes(self) -> int:
        """Size of the whole entries removed."""
        return sum(entry.bytes for entry in self.entries)

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "removed": [{"name": entry.name, "key": entry.key} for entry in self.entries],
            "bytes": self.bytes,
            "damaged": list(self.damaged),
            "unfinished": self.leftovers,
            "kept": self.kept,
        }


def prune(cache: StepCache, *, unused_days: float, max_bytes: int | None) -> Pruned:
    """Remove entries that no build took for `unused_days`, then the longest unused until the rest
    is at most `max_bytes`; an entry that a build holds now is left alone.

    Raises:
        BuildError: the cache cannot be written to.
    """
    oldest = time.time() - unused_days * 86_400
    with explain_disk_errors(f"{cache.folder} cannot be pruned", cache.folder, _ADVICE):
        leftovers = cache.remove_leftovers()
        damaged = [key for key in cache.entry_keys() if _drop(cache, key, damaged=True)]
        kept = sorted(cache.entries(), key=lambda entry: (cache.used(entry.key), entry.key))
        removed: list[CachedStep] = []
        size = sum(entry.bytes for entry in kept)
        for entry in list(kept):
            too_much = max_bytes is not None and size > max_bytes
            if (cache.used(entry.key) <= oldest or too_much) and _drop(cache, entry.key):
                kept.remove(entry)
                removed.append(entry)
                size -= entry.bytes
    return Pruned(tuple(removed), tuple(damaged), leftovers, len(kept))


def _drop(cache: StepCache, key: str, *, damaged: bool = False) -> bool:
    """Drop an entry, with `damaged` only a damaged one; returns whether it was dropped."""
    with cache.held_if_free(key) as held:
        if not held or (damaged and not isinstance(cache.check(key), Damage)):
            return False
        cache.drop(key)
        return True
