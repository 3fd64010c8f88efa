"""What a worker opens: a model, and the rules of the tiles that are prepared for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vlmc.artifact.integrity import Artifact
from vlmc.artifact.manifest import EngineRecord
from vlmc.image.tiles import TileRule
from vlmc.jobs.audit import ReferenceModel
from vlmc.jobs.job import JobModel
from vlmc.jobs.ray.prepare import TileMaker
from vlmc.jobs.thresholds import ThresholdModel
from vlmc.runtime.requests.request import TileOrigin
from vlmc.runtime.requests.scores import ScoreMeasure
from vlmc.runtime.requests.thresholds import Thresholds


class AuditedModel(JobModel, ReferenceModel, Protocol):
    """A model of jobs that can be audited."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A worker's model; `chosen` is the vision engine's record in the manifest, if there is one."""

    model: AuditedModel
    engine: str
    chosen: EngineRecord | None = None


class ModelSource(Protocol):
    """Opens the same model in every worker; is sent to them."""

    @property
    def maker(self) -> TileMaker:
        """The rules of its tiles."""

    @property
    def folder(self) -> Path | None:
        """The artifact's folder, which every worker must have; None if there is none."""

    def open(self, device: str) -> Opened:
        """The model on a device.

        Raises:
            VlmcError: it cannot be opened there.
        """


@dataclass(frozen=True, slots=True)
class ArtifactSource:
    """An artifact, to be loaded with a tile rule and perhaps another engine than the first, and
    shared by `devices`.

    `thresholds`, if given, decide the answers, of scores by `measure`.
    """

    artifact: Artifact
    tiles: TileRule
    engine: str | None = None
    devices: int = 1
    thresholds: Thresholds | None = None
    measure: ScoreMeasure = "logprob"

    @property
    def folder(self) -> Path | None:
        """See `ModelSource`."""
        return self.artifact.folder

    @property
    def maker(self) -> TileMaker:
        """See `ModelSource`."""
        origin = TileOrigin(self.artifact.identity, str(self.tiles))
        return TileMaker(self.artifact.manifest.image, self.tiles, origin)

    def open(self, device: str) -> Opened:
        """See `ModelSource`. Files are hashed again only where they are not the driver's."""
        from vlmc.runtime.load import load

        model = load(
            self.artifact,
            device=device,
            devices=self.devices,
            tiles=self.tiles,
            engine=self.engine,
        )
        answering: AuditedModel = model
        if self.thresholds is not None:
            answering = ThresholdModel(model, self.thresholds, self.measure)
        return Opened(answering, model.engine, model.chosen)
