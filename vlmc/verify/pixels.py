"""Pixels: the artifact's tiles against its recipe's, and the recipe's resampler against Pillow."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmc.image.preprocess import make_tiles
from vlmc.image.resize import Resampler
from vlmc.image.source import Pixels
from vlmc.image.tiles import TileRule

SAMPLE_TILES = 64
"""Tiles on which features are compared, spread over the images."""


@dataclass(frozen=True, slots=True)
class ImageGrid:
    """Grid of an image by the published rule, and the SHA-256 of its Pillow tiles."""

    width: int
    height: int
    tiles: int
    sha256: str


@dataclass(frozen=True, slots=True)
class SampleTile:
    """Which tile of the sample: the SHA-256 of its image's bytes, and its place in the image."""

    image: str
    index: int


@dataclass(slots=True)
class PixelCheck:
    """Differences, in levels of 255, gathered image by image; `wrong` and `moved` say why each
    image is listed."""

    images: int = 0
    tiles: int = 0
    wrong: dict[str, str] = field(default_factory=dict)  # not what the recipe makes
    moved: dict[str, str] = field(default_factory=dict)  # not the source's grid
    decoded_otherwise: int = 0  # images that the reference's machine decodes to other pixels
    _counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))

    def compare(
        self,
        name: str,
        found: Pixels,
        tiles_by: Callable[[Resampler], Pixels],
        rule: TileRule,
        resampler: Resampler,
    ) -> None:
        """Compare the tiles of one image: the artifact's, the recipe's, and Pillow's.

        `tiles_by` makes those of a resampler by the recipe's rules.
        """
        self.images += 1
        self.tiles += len(found)
        reference = tiles_by("pillow")
        expected = reference if resampler == "pillow" else tiles_by(resampler)
        if len(found) != len(expected):
            self.wrong[name] = (
                f"{len(found)} tiles, and the recipe's rule {rule} makes {len(expected)}"
            )
            return
        if not np.array_equal(found, expected):
            self.wrong[name] = f"pixels that the recipe's resampler, {resampler}, does not make"
        self._count(found, reference)

    def _count(self, found: Pixels, reference: Pixels) -> None:
        for one, other in zip(found, reference, strict=True):
            difference = np.maximum(one, other) - np.minimum(one, other)
            self._counts += np.bincount(difference.ravel(), minlength=256)

    @property
    def mean(self) -> float:
        """Mean absolute difference to Pillow."""
        total = int(self._counts.sum())
        return float(self._counts @ np.arange(256)) / total if total else math.nan

    @property
    def p99(self) -> int:
        """The difference that 99 % of the values do not exceed."""
        reached = np.cumsum(self._counts) >= 0.99 * self._counts.sum()
        return int(np.argmax(reached))

    @property
    def maximum(self) -> int:
        """The largest difference."""
        return int(np.flatnonzero(self._counts)[-1]) if self._counts.any() else 0

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "images": self.images,
            "tiles": self.tiles,
            "mean": round(self.mean, 4) if self._counts.any() else None,
            "p99": self.p99,
            "max": self.maximum,
            "decoded_otherwise": self.decoded_otherwise,
            "wrong": [{"image": name, "why": why} for name, why in self.wrong.items()][:20],
            "moved": [{"image": name, "why": why} for name, why in self.moved.items()][:20],
        }


def grid_of(pixels: Pixels, published: TileRule) -> ImageGrid:
    """What the source makes of an image before its tower sees it."""
    tiles = make_tiles(pixels, published, "pillow")
    digest = hashlib.sha256(tiles.tobytes()).hexdigest()
    return ImageGrid(pixels.shape[1], pixels.shape[0], len(tiles), digest)


def sampled(images: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Images to take tiles from, and how many of each; at most `SAMPLE_TILES` in all."""
    chosen = min(len(images), SAMPLE_TILES)
    for place in range(chosen):
        share = SAMPLE_TILES * (place + 1) // chosen - SAMPLE_TILES * place // chosen
        yield images[place * len(images) // chosen], share


def sample_indices(tiles: int, share: int) -> list[int]:
    """At most `share` places among an image's tiles, evenly spread."""
    share = min(share, tiles)
    return [place * tiles // share for place in range(share)]
