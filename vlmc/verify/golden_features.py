"""The features level alone: golden tiles through one engine, at every profile's sizes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vlmc.artifact.integrity import Artifact, open_artifact
from vlmc.artifact.manifest import EngineRecord
from vlmc.runtime.engines.onnxruntime_engine import BATCH_TILES
from vlmc.runtime.engines.selection import choose, find_device, open_engine
from vlmc.runtime.engines.self_test import read_golden
from vlmc.verify.features import FeatureCheck, batch_counts, check_features
from vlmc.verify.pixels import SampleTile


@dataclass(frozen=True, slots=True)
class GoldenFeatures:
    """An engine's features of the golden tiles, compared with those of the fp32 tower."""

    artifact: Artifact
    engine: EngineRecord
    check: FeatureCheck

    @property
    def passed(self) -> bool:
        """Whether the worst tile reaches the engine's threshold."""
        return self.check.worst >= self.engine.min_feature_cosine

    @property
    def failure(self) -> str | None:
        """Why the engine is not accurate enough; None if it is."""
        if self.passed:
            return None
        return (
            f"{self.engine.engine} is not accurate enough: its worst golden tile has cosine "
            f"{self.check.worst:.6f}, and {self.engine.min_feature_cosine:g} is needed. Add "
            "--layers to find the layer that diverges."
        )

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        threshold = self.engine.min_feature_cosine
        return {
            "artifact": str(self.artifact.folder),
            "identity": self.artifact.identity,
            "engine": self.engine.engine,
            "target": self.engine.target,
            "precision": self.engine.precision,
            "min_feature_cosine": threshold,
            "passed": self.passed,
            **self.check.to_json(),
            "below": self.check.worst_tiles(threshold),
        }

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"artifact    {self.artifact.folder}, identity {self.artifact.identity[:8]}"
        yield (
            f"engine      {self.engine.engine} for {self.engine.target}, {self.engine.precision}"
        )
        for count, values in self.check.cosines.items():
            yield (
                f"features    batches of {count}: worst cosine {values.min():.6f}, golden tile "
                f"{values.argmin()}"
            )
        state = "passed" if self.passed else "FAILED"
        yield (
            f"{state}      worst cosine {self.check.worst:.6f}, at least "
            f"{self.engine.min_feature_cosine:g}"
        )


def verify_golden_features(folder: Path, *, engine: str | None, tiles: int) -> GoldenFeatures:
    """Run golden tiles through an engine at every profile's min, opt and max.

    Args:
        folder: the artifact.
        engine: the engine by name; without, the one that `load` takes.
        tiles: number of golden tiles.

    Raises:
        VlmcError: a file is damaged, or the engine cannot run here or fails.
    """
    artifact, device = open_artifact(folder), find_device("auto")
    record = choose(artifact.manifest, artifact.folder, device, engine)
    images, features = read_golden(artifact)
    where = torch.device("cpu") if record.target == "cpu" else device
    with closing(open_engine(artifact, record, where)) as opened, torch.inference_mode():
        check = check_features(
            opened,
            images[:tiles].numpy(),
            [SampleTile("golden", index) for index in range(len(images[:tiles]))],
            features[:tiles].numpy(),
            batch_counts(opened.profiles, BATCH_TILES),
        )
    return GoldenFeatures(artifact, record, check)
