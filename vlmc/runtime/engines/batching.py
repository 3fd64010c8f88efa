"""A batch of any size as runs of the sizes that an engine's profiles allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from vlmc.artifact.manifest import Profile


@dataclass(frozen=True, slots=True)
class Run:
    """`tiles` tiles run as a batch of `batch` ≥ `tiles`, in the profile of that index."""

    profile: int
    batch: int
    tiles: int


@lru_cache(maxsize=1024)
def split(count: int, profiles: tuple[Profile, ...]) -> tuple[Run, ...]:
    """The fewest runs that take `count` tiles, and of those the ones with the least padding.

    Larger batches come first, and the last run alone is padded. A batch that several profiles
    allow runs in the one whose opt is nearest.
    """
    largest = max(profile.max for profile in profiles)
    runs = -(-count // largest)
    shortfalls = _shortfalls(runs * largest - count, runs, largest, profiles)
    batches = [largest] * (runs - len(shortfalls)) + [largest - less for less in shortfalls]
    split_into, left = [], count
    for batch in batches:
        split_into.append(Run(_profile_of(batch, profiles), batch, min(batch, left)))
        left -= batch
    return tuple(split_into)


def _shortfalls(
    spare: int, runs: int, largest: int, profiles: Sequence[Profile]
) -> tuple[int, ...]:
    """How much smaller than the largest batch some of the runs may be, in ascending order.

    Of all sums of at most `runs` shortfalls that are no more than `spare` the largest: what is
    left of `spare` is padding. `spare` is smaller than the largest batch, so that this is quick
    however many tiles there are.
    """
    sizes = {size for profile in profiles for size in range(profile.min, profile.max + 1)}
    steps = sorted(largest - size for size in sizes if 0 < largest - size <= spare)
    fewest: dict[int, tuple[int, ...]] = {0: ()}
    for total in range(1, spare + 1):
        ways = [(*fewest[total - step], step) for step in steps if total - step in fewest]
        if ways:
            fewest[total] = min(ways, key=len)
    best = max(total for total, way in fewest.items() if len(way) <= runs)
    return tuple(sorted(fewest[best]))


def _profile_of(batch: int, profiles: Sequence[Profile]) -> int:
    fitting = (i for i, profile in enumerate(profiles) if profile.min <= batch <= profile.max)
    return min(fitting, key=lambda i: (abs(profiles[i].opt - batch), profiles[i].max))
