"""The layers of an artifact's TensorRT plans, from the engine inspector."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from vlmc.artifact.integrity import open_artifact
from vlmc.errors import HardwareError
from vlmc.machine.polygraphy_trt import inspect_plan, missing
from vlmc.machine.support import EngineName, Precision

_PLANS = ("tensorrt", "tensorrt-rtx")


@dataclass(frozen=True, slots=True)
class PlanLayers:
    """What the inspector shows of a plan, or the reason why it cannot be loaded here."""

    file: str
    layers: str | None
    reason: str | None

    def text(self) -> str:
        """For people."""
        return f"layers      {self.file}: {self.layers or f'not shown, {self.reason}'}"


def inspect_plans(folder: Path) -> list[PlanLayers]:
    """Load every TensorRT plan of an artifact that this machine can load, and list its layers.

    Raises:
        IntegrityError: a file does not match the manifest.
    """
    artifact = open_artifact(folder)  # checks hashes, because plans are native code
    found = []
    for record in artifact.manifest.engines:
        if record.engine not in _PLANS:
            continue
        engine = cast(EngineName, record.engine)
        reason = missing(engine, cast(Precision, record.precision))
        layers = None
        if reason is None:
            try:
                layers = inspect_plan(engine, artifact.path(record.file))
            except HardwareError as error:
                reason = str(error)
        found.append(PlanLayers(record.file, layers, reason))
    return found
