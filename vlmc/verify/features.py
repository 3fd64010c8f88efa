"""Features: the same tiles through the fp32 source tower and through an engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vlmc.artifact.manifest import Profile
from vlmc.errors import AccuracyError
from vlmc.models.cosine import tile_cosines
from vlmc.runtime.engines.engine import VisionEngine
from vlmc.verify.pixels import SampleTile

_LISTED = 10


@dataclass(frozen=True, slots=True)
class FeatureCheck:
    """Cosines (tiles,) of the flattened features to the fp32 ones, by the number of tiles that
    the engine was given at once."""

    tiles: tuple[SampleTile, ...]
    cosines: dict[int, npt.NDArray[np.float64]]

    @property
    def worst(self) -> float:
        """Cosine of the worst tile at any number; -1 where features are not finite."""
        return min(float(values.min()) for values in self.cosines.values())

    def worst_tiles(self, below: float) -> list[dict[str, Any]]:
        """The worst tiles under a threshold, each at its worst number, at most ten."""
        found: list[dict[str, Any]] = [
            {
                "cosine": float(values[index]),
                "image": self.tiles[index].image,
                "tile": self.tiles[index].index,
                "batch_tiles": count,
            }
            for count, values in self.cosines.items()
            for index in np.flatnonzero(values < below)
        ]
        found.sort(key=lambda tile: tile["cosine"])
        unique = {(tile["image"], tile["tile"]): tile for tile in reversed(found)}
        return sorted(unique.values(), key=lambda tile: tile["cosine"])[:_LISTED]

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "tiles": len(self.tiles),
            "worst_cosine": self.worst,
            "by_batch_tiles": {
                str(count): {"worst": float(values.min()), "mean": float(values.mean())}
                for count, values in self.cosines.items()
            },
        }


def batch_counts(profiles: Sequence[Profile], batch_tiles: int) -> list[int]:
    """Numbers of tiles to try: every profile's min, opt and max, and one that must be split.

    Without profiles any number runs, in batches of at most `batch_tiles`.
    """
    if not profiles:
        return [1, batch_tiles + 1]
    counts = {count for profile in profiles for count in (profile.min, profile.opt, profile.max)}
    return sorted(counts | {max(counts) + 1})


def check_features(
    engine: VisionEngine,
    tiles: npt.NDArray[np.uint8],
    places: Sequence[SampleTile],
    expected: npt.NDArray[np.float32],
    counts: Sequence[int],
) -> FeatureCheck:
    """Every tile at every number of tiles at once, against `expected` fp32 (N, 256, hidden).

    Raises:
        AccuracyError: the engine's features have another shape, or the expected ones are NaN or
            infinite.
    """
    for place, features in zip(places, expected, strict=True):
        check_finite(features, place.image)
    cosines = {}
    given = torch.from_numpy(tiles)
    for count in counts:
        parts = []
        for start in range(0, len(tiles), count):
            # The last batch is filled up from the beginning, so that the number stays the same.
            order = torch.arange(start, start + count) % len(tiles)
            found = engine.infer(given[order].to(engine.device))
            parts.append(found[: len(tiles) - start].float().cpu())
        features = torch.cat(parts)
        if features.shape != expected.shape:
            raise AccuracyError(
                f"features: {engine.name} makes {list(features.shape[1:])} a tile, the source's "
                f"tower {list(expected.shape[1:])}; the artifact was not made from this source"
            )
        cosines[count] = tile_cosines(features, torch.from_numpy(expected)).numpy()
    return FeatureCheck(tuple(places), cosines)


def check_finite(features: npt.NDArray[np.float32], image: str) -> None:
    """Check that the source's features can be compared with.

    Raises:
        AccuracyError: they are NaN or infinite; names the image.
    """
    if not np.isfinite(features).all():
        raise AccuracyError(
            f"the source model's features of {image} are NaN or infinite, so nothing can be "
            "compared with them. Its vision tower overflows in fp32: check the checkpoint."
        )
