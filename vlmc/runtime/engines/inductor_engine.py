"""AOTInductor packages on the GPU: kernels compiled ahead, weights from the artifact's tower."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vlmc.artifact.manifest import EngineRecord
from vlmc.errors import HardwareError
from vlmc.machine.aoti_environment import AotiEnvironment, aoti_environment_of, differences
from vlmc.models.vision.aoti_package import AotiPackage, rebuild
from vlmc.models.vision.fuse import fuse
from vlmc.models.vision.tower import VisionTower
from vlmc.models.vision.tower_precision import TowerPrecision


class InductorEngine:
    """A package of kernels with the weights of the fused tower; any number of tiles at once.

    Batches larger than the largest profile are run in parts, so that memory stays what that takes.
    A run may be captured in a CUDA graph.
    """

    name = "inductor"

    def __init__(
        self,
        package: Path,
        entry: EngineRecord,
        tower: VisionTower,
        precision: TowerPrecision,
        device: torch.device,
    ) -> None:
        """Load `package`, compiling nothing.

        Args:
            tower: the weights that the artifact holds, channels migrated as for calibration.
            precision: the precisions that the package was compiled with.

        Raises:
            HardwareError: it was compiled for another GPU, torch or CUDA, for a newer driver, or
                for another tower.
        """
        check_versions(package, entry, device)
        self.precision, self.profiles, self.device = entry.precision, entry.profiles, device
        self._dtype = precision.dtype
        self._largest = max((profile.max for profile in entry.profiles), default=None)
        self.device_memory_bytes = entry.device_memory_bytes or 0
        with torch.cuda.device(device):
            fused = fuse(tower, precision).to(device)
            self._outputs = fused.projector_bias.shape[0]
            self._package = AotiPackage(package, fused.state_dict(), device)

    def infer(
        self, tiles: Tensor, out: Tensor | None = None, stream: torch.cuda.Stream | None = None
    ) -> Tensor:
        """uint8 tiles (N, 448, 448, 3) → features (N, 256, hidden); see `VisionEngine`."""
        stream = torch.cuda.current_stream(self.device) if stream is None else stream
        with torch.cuda.device(self.device), torch.cuda.stream(stream), torch.inference_mode():
            count = tiles.shape[0]
            step = self._largest or count
            if out is None and count <= step:
                return self._package.run(tiles.contiguous())
            if out is None:
                shape = (count, 256, self._outputs)
                out = torch.empty(shape, dtype=self._dtype, device=self.device)
            for start in range(0, count, step):
                part = slice(start, start + step)
                out[part] = self._package.run(tiles[part].contiguous())
            return out

    def close(self) -> None:
        """Free kernels and weights."""
        torch.cuda.synchronize(self.device)
        self._package.close()


def check_versions(package: Path, entry: EngineRecord, device: torch.device) -> None:
    """Refuse a package that was compiled for another machine than this one.

    Raises:
        HardwareError: what it needs and what is here differ; says both.
    """
    refuse_other(package, entry.versions, entry.target, aoti_environment_of(device))


def refuse_other(
    package: Path, versions: Mapping[str, str], target: str, here: AotiEnvironment
) -> None:
    """Compare what a package was compiled with, as the manifest has it, with what is `here`.

    Raises:
        HardwareError: they differ; says both.
    """
    other = differences(versions, target, here)
    if other:
        raise HardwareError(
            f"{package} was compiled for {'; for '.join(other)}. {rebuild(package, here.target)}"
        )
