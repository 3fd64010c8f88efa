"""From a scene to what a training step takes: tiles, where they lie, things and questions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recipes.quickstart.training.dense import describe
from recipes.quickstart.training.parts import Scene
from recipes.quickstart.training.prompts import Branch, Prompts
from vlmc.image.decode import Pixels, decode
from vlmc.image.preprocess import make_tiles
from vlmc.image.resize import Resampler, resize
from vlmc.image.tiles import TILE_SIZE, TileRule, choose_grid

RULES: dict[str, TileRule] = {
    "original-12": TileRule("original"),
    "original-6": TileRule("original", max=6),
    "original-1": TileRule("original", max=1),
    "native-12": TileRule("native"),
    "native-4": TileRule("native", max=4),
    "native-2": TileRule("native", max=2),
    "single": TileRule("single"),
}
# Shares of the rules at the moments of the language stage given by `MOMENTS`, blended between.
# Finding a thing among thousands of tokens is learned only after finding it in one tile: begun
# with all rules mixed, training stays for minutes at answers that ignore the picture.
MOMENTS = (0.0, 0.2, 0.32, 0.45, 1.0)
SHARES = (
    (0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.5),
    (0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.5),
    (0.1, 0.1, 0.05, 0.15, 0.25, 0.25, 0.1),
    (0.42, 0.08, 0.02, 0.34, 0.07, 0.04, 0.03),
    (0.42, 0.08, 0.02, 0.34, 0.07, 0.04, 0.03),
)
SMALL_ONLY = 0.2
"""Until this moment of the language stage only small pictures, whose things fill more tokens."""
QUESTION_KINDS = ("presence", "label", "order", "count", "colour")
CROPS = 13
_TARGET_LABEL = 0.55
_TARGET_THING = 0.35
_PILLOW_SHARE = 0.5
# Pillow takes four times as long, and a crop's cost is mostly its resize.
_PILLOW_CROPS = 0.2


@dataclass(frozen=True, slots=True)
class Sample:
    """One image as tiles.

    Shapes: tiles (T, 448, 448, 3) uint8; windows (T, 4) and boxes (K, 4) float32, as shares of
    the image's width and height; classes (K, 6) int64 as `dense.describe` gives them. `kinds` are
    indices of `QUESTION_KINDS`, one for every branch.
    """

    tiles: Pixels
    windows: NDArray[np.float32]
    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]
    branches: tuple[Branch, ...]
    kinds: tuple[int, ...]


def choose_rule(progress: float, random: np.random.Generator) -> TileRule:
    """A tile rule for a moment of the language stage, `progress` going from 0 to 1."""
    shares = np.array(
        [np.interp(progress, MOMENTS, column) for column in zip(*SHARES, strict=True)]
    )
    return list(RULES.values())[int(random.choice(len(RULES), p=shares / shares.sum()))]


def resampler(random: np.random.Generator, pillow_share: float) -> Resampler:
    """Either, so that the model depends on neither."""
    return "pillow" if random.random() < pillow_share else "opencv"


def grid_sample(
    scene: Scene, image: Pixels, rule: TileRule, prompts: Prompts, kind: Resampler
) -> Sample:
    """The image cut as a tile rule has it, with every question of the scene."""
    grid = choose_grid(scene.width, scene.height, rule)
    windows = [
        (x / grid.columns, y / grid.rows, (x + 1) / grid.columns, (y + 1) / grid.rows)
        for y in range(grid.rows)
        for x in range(grid.columns)
    ]
    if grid.thumbnail:
        windows.append((0.0, 0.0, 1.0, 1.0))
    return _sample(
        scene,
        make_tiles(image, rule, kind),
        windows,
        tuple(prompts.branch(q.prompt, q.answer) for q in scene.questions),
        tuple(QUESTION_KINDS.index(q.kind) for q in scene.questions),
    )


def crop_sample(scene: Scene, image: Pixels, random: np.random.Generator) -> Sample:
    """Windows of the scene at the scales that the tile rules make, most of them on things.

    Cutting only where there is something to see teaches the tower to read and to tell things
    apart in a fraction of the tiles that whole images would take.
    """
    tiles = np.empty((CROPS, TILE_SIZE, TILE_SIZE, 3), np.uint8)
    windows = [_crop(scene, image, tiles[index], random) for index in range(CROPS)]
    return _sample(scene, tiles, windows, (), ())


def _crop(
    scene: Scene, image: Pixels, tile: Pixels, random: np.random.Generator
) -> tuple[float, float, float, float]:
    """Fill one tile; returns its window."""
    grid = choose_grid(scene.width, scene.height, choose_rule(1.0, random))
    jitter = float(np.exp(random.uniform(-0.15, 0.15)))
    width = min(scene.width, round(scene.width / grid.columns * jitter))
    height = min(scene.height, round(scene.height / grid.rows * jitter))
    x0 = float(random.uniform(0, scene.width - width))
    y0 = float(random.uniform(0, scene.height - height))
    labels = [thing for thing in scene.things if thing.text is not None]
    draw = random.random()
    wanted = labels if draw < _TARGET_LABEL and labels else list(scene.things)
    if wanted and draw < _TARGET_LABEL + _TARGET_THING:
        box = wanted[int(random.integers(len(wanted)))].box
        x0 = _place(box[0], box[2], width, random)
        y0 = _place(box[1], box[3], height, random)
    left = round(min(max(x0, 0), scene.width - width))
    top = round(min(max(y0, 0), scene.height - height))
    part = np.ascontiguousarray(image[top : top + height, left : left + width])
    tile[...] = resize(part, TILE_SIZE, TILE_SIZE, resampler(random, _PILLOW_CROPS))
    return (
        left / scene.width,
        top / scene.height,
        (left + width) / scene.width,
        (top + height) / scene.height,
    )


def _place(first: float, last: float, size: int, random: np.random.Generator) -> float:
    """Where a window of `size` begins so that it holds the span from `first` to `last`."""
    low, high = sorted((last - size, first))
    return float(random.uniform(low, high))


def _sample(
    scene: Scene,
    tiles: Pixels,
    windows: list[tuple[float, float, float, float]],
    branches: tuple[Branch, ...],
    kinds: tuple[int, ...],
) -> Sample:
    size = np.array([scene.width, scene.height] * 2, np.float32)
    boxes = np.array([thing.box for thing in scene.things], np.float32).reshape(-1, 4) / size
    classes = np.array([describe(thing) for thing in scene.things], np.int64).reshape(-1, 6)
    return Sample(tiles, np.array(windows, np.float32), boxes, classes, branches, kinds)


def samples_of(
    scene: Scene,
    prompts: Prompts,
    random: np.random.Generator,
    progress: float | None,
    visits: int,
) -> Iterator[Sample]:
    """What a worker makes of one scene: crops for the dense stage (`progress` None), or the whole
    image by `visits` tile rules."""
    if progress is not None and progress < SMALL_ONLY and scene.large:
        return
    image = decode(scene.jpeg)
    if progress is None:
        yield crop_sample(scene, image, random)
        return
    for _ in range(visits):
        rule, kind = choose_rule(progress, random), resampler(random, _PILLOW_SHARE)
        yield grid_sample(scene, image, rule, prompts, kind)
