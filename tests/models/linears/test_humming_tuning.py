"""Which tiles humming's kernels use: the tuned ones, for the row counts that were tuned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from vlmc.errors import HardwareError
from vlmc.models.linears import autotune
from vlmc.models.linears.humming_tuning import (
    BANDS,
    Interval,
    agree,
    candidate_tiles,
    override_tiles,
    read_choice,
    tuned_tiles,
)
from vlmc.progress.channel import receiving
from vlmc.progress.events import Event, Note

HOPPER = (9, 0)
OWN: list[Interval] = [
    (0, 8, {"own": 1}),
    (8, 24, {"own": 2}),
    (24, 64, {"own": 3}),
    (64, 8192, {"own": 4}),
]
CHOSEN = {"chosen": 1}


def tiles(intervals: list[Interval]) -> list[object]:
    """The tile of each row count that humming would look up, by its rule: above, up to."""
    found = []
    for rows in range(1, 101):
        (tile,) = [tile for low, high, tile in intervals if low < rows <= high]
        found.append(tile)
    return found


@pytest.mark.parametrize("bands", [(), (8,), (16,), (32,), (8, 32), BANDS])
def test_every_row_count_has_one_tile(bands: tuple[int, ...]) -> None:
    intervals = override_tiles(OWN, dict.fromkeys(bands, CHOSEN))
    for rows, tile, own in zip(range(1, 101), tiles(intervals), tiles(OWN), strict=True):
        band = next((band for band in BANDS if rows <= band), None)
        assert tile == (CHOSEN if band in bands else own)
    assert intervals[0][0] == 0
    assert intervals[-1][1] == 8192


def test_tiles_divide_the_weight() -> None:
    both = candidate_tiles((512, 512), HOPPER)
    assert tuple(both) == BANDS
    assert {len(candidates) for candidates in both.values()} == {3}
    for shape, count in (((384, 512), 2), ((512, 128), 1)):
        candidates = candidate_tiles(shape, HOPPER)
        assert {len(found) for found in candidates.values()} == {count}
        for rows, found in candidates.items():
            for tile in found:
                height, outputs, inputs = tile["block_shape"]
                assert (height, shape[0] % outputs, shape[1] % inputs) == (rows, 0, 0)
    assert candidate_tiles((384, 896), HOPPER) == {}


def test_only_the_architecture_that_was_measured_has_others_tried() -> None:
    assert candidate_tiles((512, 512), (8, 9)) == {}
    assert candidate_tiles((512, 512), (12, 0)) == {}


def test_a_choice_is_read_back_if_it_is_still_tried() -> None:
    candidates = candidate_tiles((512, 512), HOPPER)
    choice = {8: candidates[8][1], 32: candidates[32][2]}
    assert read_choice(json.loads(json.dumps(choice)), candidates) == choice
    assert read_choice({}, candidates) == {}
    for damaged in (
        {"8": candidates[16][0]},
        {"64": candidates[8][0]},
        {"x": candidates[8][0]},
        5,
        None,
    ):
        with pytest.raises((ValueError, TypeError)):
            read_choice(damaged, candidates)


def test_a_tile_that_computes_something_else_is_seen() -> None:
    expected = torch.randn(8, 512, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert agree(expected * 1.004, expected)
    assert agree(torch.zeros(8, 512), torch.zeros(8, 512))
    swapped = expected.clone()
    swapped[:, :16] = expected[:, 16:32]
    for wrong in (swapped, torch.zeros(8, 512), expected / 0):
        assert not agree(wrong, expected)
    one = expected.clone()
    one[0, 0] = torch.nan
    assert not agree(one, expected)
    assert not agree(expected, one)


@pytest.mark.parametrize(
    "error", [TypeError("unexpected keyword use_pdl"), torch.OutOfMemoryError("short"), OSError(28)]
)
def test_tiles_that_cannot_be_tried_are_reported_and_tried_again(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(autotune, "_decided", {})
    candidates = candidate_tiles((512, 512), HOPPER)
    events: list[Event] = []

    def fail() -> dict[int, dict[str, object]]:
        raise error

    choice = {8: candidates[8][0]}
    with receiving(events.append):
        assert tuned_tiles("key", candidates, fail) == {}
        assert events == [
            Note(
                f"cannot tune the tiles of humming-kernels, so its default tiles are used: {error}"
            )
        ]
        assert tuned_tiles("key", candidates, lambda: choice) == choice
        assert tuned_tiles("key", candidates, fail) == choice
        assert tuned_tiles("other", {}, fail) == {}
    assert len(events) == 1


def test_wrong_products_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(autotune, "_decided", {})

    def wrong() -> dict[int, dict[str, object]]:
        raise HardwareError("computes wrongly")

    with pytest.raises(HardwareError):
        tuned_tiles("key", candidate_tiles((512, 512), HOPPER), wrong)
