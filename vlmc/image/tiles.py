"""Choose the grid of tiles that an image is stretched to, and count its tokens."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

from vlmc.errors import UsageError

TILE_SIZE = 448
"""Side of a tile in pixels, the same in every InternVL2 checkpoint."""
TOKENS_PER_TILE = 256
"""(448 / 14 · 0.5)²: patches of 14 pixels, pixel shuffle by one half."""
MAX_TILES = 1024
"""More than any context of the family holds (262,144 tokens)."""

RuleName = Literal["original", "native", "single"]
RULE_NAMES: tuple[RuleName, ...] = get_args(RuleName)

# For each rule, the fields that it does not use and the only value they may have.
_WITHOUT_EFFECT: dict[RuleName, dict[str, int | float | bool]] = {
    "original": {"tolerance": 0.05},
    "native": {"min": 1},
    "single": {"min": 1, "max": 1, "thumbnail": False, "tolerance": 0.05},
}


@dataclass(frozen=True, slots=True, init=False)
class TileRule:
    """How the grid follows from an image's size.

    - `original`: the published rule; the grid of `min` to `max` tiles nearest in aspect ratio.
    - `native`: the fewest tiles, at most `max`, that lose no resolution beyond `tolerance`.
    - `single`: one tile.

    A value left out is the rule's own default.

    Raises:
        UsageError: a value is impossible, or the rule does not use it.
    """

    name: RuleName
    min: int = 1
    max: int = 12
    thumbnail: bool = True
    tolerance: float = 0.05

    def __init__(
        self,
        name: RuleName,
        min: int | None = None,
        max: int | None = None,
        thumbnail: bool | None = None,
        tolerance: float | None = None,
    ) -> None:
        if name not in RULE_NAMES:
            raise UsageError(f"unknown tile rule {name!r}; use one of {', '.join(RULE_NAMES)}")
        set_field = object.__setattr__
        set_field(self, "name", name)
        set_field(self, "min", 1 if min is None else min)
        set_field(self, "max", (1 if name == "single" else 12) if max is None else max)
        set_field(self, "thumbnail", name == "original" if thumbnail is None else thumbnail)
        set_field(self, "tolerance", 0.05 if tolerance is None else tolerance)
        self.__post_init__()

    def __post_init__(self) -> None:
        for key in ("min", "max"):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int):
                raise UsageError(f"tiles.{key} is {value!r}; it must be a whole number")
            if not 1 <= value <= MAX_TILES:
                raise UsageError(f"tiles.{key} is {value}; it must be between 1 and {MAX_TILES}")
        if not isinstance(self.thumbnail, bool):
            raise UsageError(f"tiles.thumbnail is {self.thumbnail!r}; it must be true or false")
        if isinstance(self.tolerance, bool) or not isinstance(self.tolerance, int | float):
            raise UsageError(f"tiles.tolerance is {self.tolerance!r}; it must be a number")
        if not (math.isfinite(self.tolerance) and self.tolerance >= 0):
            raise UsageError(f"tiles.tolerance is {self.tolerance}; it must be 0 or more")
        if self.min > self.max:
            raise UsageError(
                f"tiles.min is {self.min} and tiles.max is {self.max}, which leaves no grid; "
                "lower min or raise max"
            )
        self._refuse_values_without_effect()

    def _refuse_values_without_effect(self) -> None:
        for key, only in _WITHOUT_EFFECT[self.name].items():
            value = getattr(self, key)
            if value != only:
                raise UsageError(
                    f"tiles.{key} is {value}, but the rule {self.name!r} does not use it; "
                    f"remove tiles.{key} or choose another rule"
                )

    @property
    def most_tiles(self) -> int:
        """The most tiles of an image, with the thumbnail."""
        return self.max + self.thumbnail

    def __str__(self) -> str:
        """The text that `parse_tiles` reads back, with every value."""
        if self.name == "single":
            return "single"
        thumbnail = str(self.thumbnail).lower()
        if self.name == "original":
            return f"original:min={self.min},max={self.max},thumbnail={thumbnail}"
        return f"native:max={self.max},thumbnail={thumbnail},tolerance={self.tolerance!r}"


@dataclass(frozen=True, slots=True)
class Grid:
    """Columns and rows of tiles; with `thumbnail`, the whole image follows as one more tile."""

    columns: int
    rows: int
    thumbnail: bool

    @property
    def tiles(self) -> int:
        """Tiles the vision tower sees, with the thumbnail."""
        return self.columns * self.rows + self.thumbnail

    @property
    def tokens(self) -> int:
        """Image tokens the language model sees."""
        return tokens_for(self.tiles)


def tokens_for(tiles: int) -> int:
    """Image tokens of a number of tiles."""
    return TOKENS_PER_TILE * tiles


def kept_tokens(keep: float) -> int:
    """Tokens of a tile where a share of them is kept, at least one."""
    return max(1, round(TOKENS_PER_TILE * keep))


def checkpoint_rule(*, dynamic: bool, min: int, max: int, thumbnail: bool) -> TileRule:
    """The rule that a checkpoint was published with.

    The values are `config.json`'s `dynamic_image_size`, `min_dynamic_patch`,
    `max_dynamic_patch` and `use_thumbnail`.
    """
    if not dynamic:
        return TileRule("single")
    return TileRule("original", min=min, max=max, thumbnail=thumbnail)


def parse_tiles(text: str, checkpoint: TileRule) -> TileRule:
    """Read `original`, `native:max=4,thumbnail=true`, `single`, as `--tiles` takes them.

    `checkpoint` is the rule that the model was published with; `original` takes from it what
    the text leaves out.

    Raises:
        UsageError: names the part that cannot be read.
    """
    name, _, tail = text.strip().partition(":")
    if name not in RULE_NAMES:
        raise UsageError(f"unknown tile rule {name!r}; use one of {', '.join(RULE_NAMES)}")
    values = _parse_values(tail) if tail else {}
    if name == "original" and checkpoint.name == "original":
        published = {key: getattr(checkpoint, key) for key in ("min", "max", "thumbnail")}
        values = {**published, **values}
    return TileRule(name, **values)


def _parse_values(text: str) -> dict[str, Any]:
    readers: dict[str, tuple[Callable[[str], int | float | bool], str]] = {
        "min": (int, "a whole number"),
        "max": (int, "a whole number"),
        "thumbnail": (lambda value: {"true": True, "false": False}[value], "true or false"),
        "tolerance": (float, "a number"),
    }
    values: dict[str, Any] = {}
    for part in text.split(","):
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key not in readers:
            raise UsageError(
                f"unknown key {key!r} in the tile rule; use one of {', '.join(readers)}"
            )
        if key in values:
            raise UsageError(f"{key} is given twice in the tile rule; keep one")
        read, expected = readers[key]
        try:
            values[key] = read(value)
        except (ValueError, KeyError):
            raise UsageError(
                f"{key} is {value!r} in the tile rule; it must be {expected}"
            ) from None
    return values


def choose_grid(width: int, height: int, rule: TileRule) -> Grid:
    """The grid of an image of `width` · `height` pixels; the whole image is stretched to it."""
    if width < 1 or height < 1:
        raise UsageError(f"an image of {width}x{height} pixels has no grid; both must be 1 or more")
    if rule.name == "single":
        return Grid(1, 1, False)
    choose = _nearest_aspect if rule.name == "original" else _fewest_tiles
    columns, rows = choose(width, height, rule)
    return Grid(columns, rows, rule.thumbnail and columns * rows > 1)


def _nearest_aspect(width: int, height: int, rule: TileRule) -> tuple[int, int]:
    """The published rule: at equal distance in aspect, a later grid wins if the image has more
    pixels than half of it."""
    aspect = width / height
    best, best_distance = (1, 1), math.inf
    for columns, rows in _candidates(rule.min, rule.max):
        distance = abs(aspect - columns / rows)
        fills_half = width * height > 0.5 * TILE_SIZE * TILE_SIZE * columns * rows
        if distance < best_distance or (distance == best_distance and fills_half):
            best, best_distance = (columns, rows), distance
    return best


def _fewest_tiles(width: int, height: int, rule: TileRule) -> tuple[int, int]:
    """The fewest tiles that cover the image, or the grid that shrinks it least."""
    candidates = _candidates(1, rule.max)
    reach = 1 + rule.tolerance
    aspect = width / height
    covering = [
        (columns, rows)
        for columns, rows in candidates
        if TILE_SIZE * columns * reach >= width and TILE_SIZE * rows * reach >= height
    ]
    if covering:
        return min(covering, key=lambda grid: (grid[0] * grid[1], abs(aspect - grid[0] / grid[1])))

    def kept_resolution(grid: tuple[int, int]) -> float:
        return min(TILE_SIZE * grid[0] / width, TILE_SIZE * grid[1] / height)

    return max(candidates, key=lambda grid: (kept_resolution(grid), -grid[0] * grid[1]))


@lru_cache(maxsize=64)
def _candidates(min_tiles: int, max_tiles: int) -> tuple[tuple[int, int], ...]:
    """Every (columns, rows) of `min_tiles` to `max_tiles` tiles, by number of tiles.

    Grids of equal size have the iteration order of a Python set that was filled by growing side,
    as in the published rule. With `min_tiles` above 1 its answer for an aspect ratio exactly
    between two grids of equal size depends on that order.
    """
    grids = [
        (columns, rows)
        for columns in range(1, max_tiles + 1)
        for rows in range(1, max_tiles // columns + 1)
        if columns * rows >= min_tiles
    ]
    grids.sort(key=lambda grid: (max(*grid, min_tiles), *grid))
    return tuple(sorted(set(grids), key=lambda grid: grid[0] * grid[1]))
