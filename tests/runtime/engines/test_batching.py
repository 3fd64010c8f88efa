"""Splitting a batch over profiles, held to a search through all ways."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmc.artifact.manifest import Profile
from vlmc.runtime.engines.batching import Run, split

PROFILES = st.lists(
    st.tuples(*[st.integers(1, 9)] * 3).map(lambda sizes: Profile(*sorted(sizes))),
    min_size=1,
    max_size=3,
).map(tuple)


def best(count: int, profiles: tuple[Profile, ...]) -> tuple[int, int]:
    """Fewest runs and least padding, by trying every size for the next run."""
    sizes = {size for p in profiles for size in range(p.min, p.max + 1)}

    @cache
    def search(left: int) -> tuple[int, int]:
        if left <= 0:
            return 0, -left
        ways = [search(left - size) for size in sizes]
        return min((runs + 1, padding) for runs, padding in ways)

    return search(count)


@settings(max_examples=400, deadline=None)
@given(st.integers(1, 40), PROFILES)
def test_runs_are_fewest_with_least_padding(count: int, profiles: tuple[Profile, ...]) -> None:
    runs = split(count, profiles)
    padding = sum(run.batch - run.tiles for run in runs)
    assert (len(runs), padding) == best(count, profiles)
    assert sum(run.tiles for run in runs) == count
    assert all(run.batch == run.tiles for run in runs[:-1]), "the last run alone is padded"
    assert all(run.tiles >= 1 for run in runs)
    for run in runs:
        profile = profiles[run.profile]
        assert profile.min <= run.batch <= profile.max
        assert all(
            abs(profile.opt - run.batch) <= abs(other.opt - run.batch)
            for other in profiles
            if other.min <= run.batch <= other.max
        )


@pytest.mark.parametrize(
    ("count", "profiles", "expected"),
    [
        (13, [(1, 4, 13)], [(0, 13, 13)]),
        (14, [(1, 4, 13)], [(0, 13, 13), (0, 1, 1)]),
        # Between the profiles: two runs of ten waste less than thirteen and a padded five.
        (18, [(1, 1, 1), (10, 13, 13)], [(1, 10, 10), (1, 10, 8)]),
        (2, [(4, 4, 4), (8, 8, 8)], [(0, 4, 2)]),
        (5, [(1, 1, 8), (1, 4, 8), (1, 8, 8)], [(1, 5, 5)]),
    ],
)
def test_examples(
    count: int, profiles: list[tuple[int, int, int]], expected: list[tuple[int, int, int]]
) -> None:
    assert split(count, tuple(Profile(*sizes) for sizes in profiles)) == tuple(
        Run(*run) for run in expected
    )


def test_many_tiles_are_split_at_once() -> None:
    runs = split(100_000, (Profile(1, 1, 4), Profile(5, 52, 52)))
    assert len(runs) == 1924
    assert sum(run.tiles for run in runs) == 100_000
