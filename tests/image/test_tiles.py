"""Grids: worked examples, the published rule's own answers, and a brute force from the text."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmc.errors import UsageError
from vlmc.image.tiles import (
    Grid,
    TileRule,
    _candidates,
    checkpoint_rule,
    choose_grid,
    parse_tiles,
    tokens_for,
)

PUBLISHED = json.loads(Path(__file__).with_name("published_tiles.json").read_text())

ORIGINAL_EXAMPLES = [
    # width, height, {max: (columns, rows, tiles)}
    (480, 320, {12: (3, 2, 7), 6: (3, 2, 7), 4: (1, 1, 1), 2: (1, 1, 1), 1: (1, 1, 1)}),
    (800, 600, {12: (4, 3, 13), 6: (3, 2, 7), 4: (2, 2, 5), 2: (1, 1, 1), 1: (1, 1, 1)}),
    (1920, 1080, {12: (4, 2, 9), 6: (2, 1, 3), 4: (2, 1, 3), 2: (2, 1, 3), 1: (1, 1, 1)}),
    (448, 448, {12: (1, 1, 1), 6: (1, 1, 1), 4: (1, 1, 1), 2: (1, 1, 1), 1: (1, 1, 1)}),
    (4000, 500, {12: (8, 1, 9), 6: (6, 1, 7), 4: (4, 1, 5), 2: (2, 1, 3), 1: (1, 1, 1)}),
    (640, 480, {12: (4, 3, 13), 6: (3, 2, 7), 4: (1, 1, 1), 2: (1, 1, 1), 1: (1, 1, 1)}),
    (480, 360, {12: (4, 3, 13), 6: (3, 2, 7), 4: (1, 1, 1)}),
    (320, 240, {12: (4, 3, 13), 6: (3, 2, 7), 4: (1, 1, 1)}),
    (320, 480, {12: (2, 3, 7), 6: (2, 3, 7), 4: (1, 2, 3), 2: (1, 2, 3), 1: (1, 1, 1)}),
    (1000, 1000, {12: (3, 3, 10), 6: (2, 2, 5), 4: (2, 2, 5), 2: (1, 1, 1), 1: (1, 1, 1)}),
    (634, 634, {12: (2, 2, 5), 6: (2, 2, 5), 4: (2, 2, 5), 2: (1, 1, 1)}),
    (633, 633, {12: (1, 1, 1), 6: (1, 1, 1), 4: (1, 1, 1)}),
    (896, 448, {12: (2, 1, 3), 6: (2, 1, 3), 4: (2, 1, 3), 2: (2, 1, 3), 1: (1, 1, 1)}),
]


@pytest.mark.parametrize(
    ("width", "height", "limit", "expected"),
    [(w, h, limit, grid) for w, h, cases in ORIGINAL_EXAMPLES for limit, grid in cases.items()],
)
def test_original_gives_the_worked_examples(
    width: int, height: int, limit: int, expected: tuple[int, int, int]
) -> None:
    grid = choose_grid(width, height, TileRule("original", max=limit))
    assert (grid.columns, grid.rows, grid.tiles) == expected
    assert grid.tokens == 256 * expected[2] == tokens_for(grid.tiles)


def test_an_image_of_exactly_half_a_grid_takes_the_smaller() -> None:
    """The published rule asks for more than half. 1008x896 is as far from the aspect 1 of 3x3, of
    which it has exactly half the pixels, as from that of 5x4."""
    rule = TileRule("original", max=24)
    assert 1008 * 896 == 0.5 * 448 * 448 * 9
    assert choose_grid(1008, 896, rule) == Grid(2, 2, True)


@pytest.mark.parametrize("limits", PUBLISHED["grids"])
def test_original_chooses_what_the_published_code_chooses(limits: str) -> None:
    low, high = map(int, limits.split("-"))
    rule = TileRule("original", min=low, max=high)
    digest = hashlib.sha256()
    sizes = [(w, h) for w in range(16, 2000, 61) for h in range(16, 2000, 53)]
    candidates = _candidates(low, high)
    for one in candidates:
        for other in candidates:
            width = one[0] * other[1] + other[0] * one[1]
            height = 2 * one[1] * other[1]
            sizes += [(width * scale, height * scale) for scale in (1, 3, 20)]
    for width, height in sizes:
        grid = choose_grid(width, height, rule)
        digest.update(bytes((grid.columns, grid.rows)))
    assert digest.hexdigest() == PUBLISHED["grids"][limits]


@pytest.mark.parametrize(
    ("width", "height", "values", "expected"),
    [
        (480, 320, {}, (2, 1, 2)),
        (640, 480, {}, (2, 2, 4)),
        (640, 480, {"max": 2}, (2, 1, 2)),
        (1080, 1440, {}, (3, 4, 12)),
        (1080, 1440, {"max": 4}, (2, 2, 4)),
        (1080, 1440, {"max": 2}, (1, 2, 2)),
        (470, 470, {}, (1, 1, 1)),
        (471, 470, {}, (2, 1, 2)),
        (471, 470, {"tolerance": 0.1}, (1, 1, 1)),
        (449, 448, {"tolerance": 0.0}, (2, 1, 2)),
        (9000, 9000, {"max": 2}, (1, 1, 1)),
        (1, 1, {}, (1, 1, 1)),
        (640, 480, {"thumbnail": True}, (2, 2, 5)),
        (100, 100, {"thumbnail": True}, (1, 1, 1)),
    ],
)
def test_native_takes_the_fewest_tiles_that_keep_the_resolution(
    width: int, height: int, values: dict[str, float], expected: tuple[int, int, int]
) -> None:
    grid = choose_grid(width, height, TileRule("native", **values))  # type: ignore[arg-type]
    assert (grid.columns, grid.rows, grid.tiles) == expected


def test_single_is_one_tile_for_any_image() -> None:
    assert choose_grid(4000, 500, TileRule("single")) == Grid(1, 1, False)
    assert choose_grid(4000, 500, TileRule("single")).tokens == 256


sizes = st.one_of(
    st.tuples(st.integers(1, 5000), st.integers(1, 5000)),
    # Exact ratios, where ties between grids decide.
    st.builds(
        lambda c, r, k: (c * k, r * k), st.integers(1, 24), st.integers(1, 24), st.integers(1, 300)
    ),
)


@given(sizes, st.integers(1, 24))
def test_original_agrees_with_a_brute_force_from_the_text(size: tuple[int, int], high: int) -> None:
    width, height = size
    grids = [(c, r) for c in range(1, high + 1) for r in range(1, high + 1) if c * r <= high]
    nearest = min(abs(width / height - c / r) for c, r in grids)
    tied = sorted(
        (g for g in grids if abs(width / height - g[0] / g[1]) == nearest),
        key=lambda g: g[0] * g[1],
    )
    filled = [g for g in tied if 2 * width * height > 448 * 448 * g[0] * g[1]]
    # The first of the tied stands unless later ones are filled by half; the last of those wins.
    expected = filled[-1] if filled else tied[0]
    got = choose_grid(width, height, TileRule("original", max=high))
    assert (got.columns, got.rows) == expected
    assert got.thumbnail == (expected != (1, 1))


@given(sizes, st.integers(1, 24), st.sampled_from([0.0, 0.05, 0.5, 1.0]))
def test_native_agrees_with_a_brute_force_from_the_text(
    size: tuple[int, int], high: int, tolerance: float
) -> None:
    width, height = size
    grids = [(c, r) for c in range(1, high + 1) for r in range(1, high + 1) if c * r <= high]
    reach = 1 + tolerance
    covering = [g for g in grids if 448 * g[0] * reach >= width and 448 * g[1] * reach >= height]
    if covering:
        fewest = min(c * r for c, r in covering)
        best = [g for g in covering if g[0] * g[1] == fewest]
        distance = min(abs(Fraction(width, height) - Fraction(*g)) for g in best)
        best = [g for g in best if abs(Fraction(width, height) - Fraction(*g)) == distance]
    else:
        scores = {g: min(Fraction(448 * g[0], width), Fraction(448 * g[1], height)) for g in grids}
        best = [g for g in grids if scores[g] == max(scores.values())]
        best = [g for g in best if g[0] * g[1] == min(c * r for c, r in best)]
    got = choose_grid(width, height, TileRule("native", max=high, tolerance=tolerance))
    assert [(got.columns, got.rows)] == best


def test_rules_have_their_own_defaults() -> None:
    assert TileRule("original") == TileRule("original", 1, 12, True, 0.05)
    assert TileRule("native") == TileRule("native", 1, 12, False, 0.05)
    assert TileRule("single") == TileRule("single", 1, 1, False, 0.05)
    assert replace(TileRule("native"), max=4) == TileRule("native", max=4)
    assert checkpoint_rule(dynamic=True, min=1, max=6, thumbnail=False) == TileRule(
        "original", max=6, thumbnail=False
    )
    assert checkpoint_rule(dynamic=False, min=1, max=6, thumbnail=True) == TileRule("single")


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"name": "nearest"}, "original, native, single"),
        ({"name": "original", "min": 0}, "tiles.min is 0"),
        ({"name": "original", "max": 0}, "tiles.max is 0"),
        ({"name": "original", "max": 5000}, "between 1 and 1024"),
        ({"name": "original", "min": 7, "max": 6}, "leaves no grid"),
        ({"name": "original", "max": 2.5}, "whole number"),
        ({"name": "original", "max": True}, "whole number"),
        ({"name": "original", "thumbnail": "yes"}, "true or false"),
        ({"name": "original", "tolerance": 0.1}, "'original' does not use it"),
        ({"name": "native", "tolerance": -0.1}, "0 or more"),
        ({"name": "native", "tolerance": float("nan")}, "0 or more"),
        ({"name": "native", "tolerance": "0.1"}, "must be a number"),
        ({"name": "native", "min": 2}, "'native' does not use it"),
        ({"name": "single", "max": 2}, "'single' does not use it"),
        ({"name": "single", "thumbnail": True}, "'single' does not use it"),
    ],
)
def test_impossible_rules_are_refused(values: dict[str, object], part: str) -> None:
    with pytest.raises(UsageError, match=part):
        TileRule(**values)  # type: ignore[arg-type]


CHECKPOINT = TileRule("original", max=6, thumbnail=False)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("original", CHECKPOINT),
        ("original:max=4", TileRule("original", max=4, thumbnail=False)),
        ("native", TileRule("native")),
        ("native:max=4,thumbnail=true", TileRule("native", max=4, thumbnail=True)),
        (" native: tolerance = 0.1 ", TileRule("native", tolerance=0.1)),
        ("single", TileRule("single")),
    ],
)
def test_tiles_texts_are_read(text: str, rule: TileRule) -> None:
    assert parse_tiles(text, CHECKPOINT) == rule
    assert parse_tiles(str(rule), CHECKPOINT) == rule


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "unknown tile rule ''"),
        ("nativ", "unknown tile rule 'nativ'"),
        ("native:maximum=4", "unknown key 'maximum'"),
        ("native:max=4,max=5", "given twice"),
        ("native:max=four", "must be a whole number"),
        ("native:thumbnail=1", "must be true or false"),
        ("native:max", "must be a whole number"),
        ("single:max=2", "does not use it"),
    ],
)
def test_tiles_texts_that_mean_nothing_are_refused(text: str, part: str) -> None:
    with pytest.raises(UsageError, match=part):
        parse_tiles(text, CHECKPOINT)


def test_an_image_without_pixels_has_no_grid() -> None:
    with pytest.raises(UsageError, match="0x5"):
        choose_grid(0, 5, TileRule("original"))
