"""Which batches get a CUDA graph; that replays are right is in tests/gpu."""

from __future__ import annotations

import pytest

from vlmc.artifact.manifest import Profile
from vlmc.runtime.engines.graphed_engine import graph_sizes


@pytest.mark.parametrize(
    ("profiles", "sizes"),
    [
        ((), (1, 2, 3, 4, 5, 6, 7, 8)),
        ((Profile(1, 4, 13),), (1, 2, 3, 4, 5, 6, 7, 8, 13)),
        ((Profile(1, 1, 4),), (1, 2, 3, 4)),
        ((Profile(1, 1, 1), Profile(2, 26, 52)), (1, 2, 3, 4, 5, 6, 7, 8, 26, 52)),
    ],
)
def test_small_batches_and_those_of_the_profiles(
    profiles: tuple[Profile, ...], sizes: tuple[int, ...]
) -> None:
    assert graph_sizes(profiles) == sizes
