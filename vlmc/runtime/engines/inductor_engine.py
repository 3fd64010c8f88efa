"""AOTInductor packages on the GPU: kernels compiled ahead, weights from the artifact's tower."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vlmc.artifact.manifest import Engine
from vlmc.errors import HardwareError
from vlmc.models.fuse import fuse
from vlmc.models.fused_plan import FusedPlan
from vlmc.models.inductor_needs import Needs, needs_of
from vlmc.models.vision import VisionTower


class InductorEngine:
    """A package of kernels with the weights of the fused tower; any number of tiles at once.

    Batches larger than the largest profile are run in parts, so that memory stays what that takes.
    A run may be captured in a CUDA graph.
    """

    name = "inductor"

    def __init__(
        self,
        package: Path,
        entry: Engine,
        tower: VisionTower,
        plan: FusedPlan,
        device: torch.device,
    ) -> None:
        """Load `package`, compiling nothing.

        Args:
            tower: the weights that the artifact holds, channels migrated as for calibration.
            plan: the precisions that the package was compiled for.

        Raises:
            HardwareError: it was compiled for another GPU, torch or CUDA, for a newer driver, or
                for another tower.
        """
        check_versions(package, entry, device)
        self.precision, self.profiles, self.device = entry.precision, entry.profiles, device
        self._dtype = plan.dtype
        self._largest = max((profile.max for profile in entry.profiles), default=None)
        self.device_memory_bytes = entry.device_memory_bytes or 0
        with torch.cuda.device(device):
            # Without its own locks and events, which a CUDA graph cannot hold.
            self._package = torch._inductor.aoti_load_package(
                str(package), run_single_threaded=True, device_index=device.index or 0
            )
            fused = fuse(tower, plan).to(device)
            self._outputs = fused.projector_bias.shape[0]
            # The package points to them and does not keep them alive.
            self._weights = dict(fused.state_dict())
            self._give_weights(package)

    def infer(
        self, tiles: Tensor, out: Tensor | None = None, stream: torch.cuda.Stream | None = None
    ) -> Tensor:
        """uint8 tiles (N, 448, 448, 3) → features (N, 256, hidden); see `VisionEngine`."""
        stream = torch.cuda.current_stream(self.device) if stream is None else stream
        with torch.cuda.device(self.device), torch.cuda.stream(stream), torch.inference_mode():
            count = tiles.shape[0]
            step = self._largest or count
            if out is None and count <= step:
                return self._run(tiles)
            if out is None:
                shape = (count, 256, self._outputs)
                out = torch.empty(shape, dtype=self._dtype, device=self.device)
            for start in range(0, count, step):
                out[start : start + step] = self._run(tiles[start : start + step])
            return out

    def close(self) -> None:
        """Free kernels and weights."""
        torch.cuda.synchronize(self.device)
        del self._package
        self._weights.clear()

    def _run(self, tiles: Tensor) -> Tensor:
        features: Tensor = self._package(tiles.contiguous())
        return features

    def _give_weights(self, package: Path) -> None:
        wanted = set(self._package.get_constant_fqns())
        if wanted - self._weights.keys():
            raise HardwareError(
                f"{package} asks for weights that the tower does not have, first "
                f"{min(wanted - self._weights.keys())}: it was compiled for another tower or "
                f"precision. {_rebuild(package, None)}"
            )
        given = {name: self._weights[name] for name in wanted}
        self._package.load_constants(given, check_full_update=True, user_managed=True)
        self._weights = given


def check_versions(package: Path, entry: Engine, device: torch.device) -> None:
    """Refuse a package that was compiled for another machine than this one.

    Raises:
        HardwareError: what it needs and what is here differ; says both.
    """
    refuse_other(package, entry.versions, entry.target, needs_of(device))


def refuse_other(package: Path, versions: Mapping[str, str], target: str, here: Needs) -> None:
    """Compare what a package was compiled with, as the manifest has it, with what is `here`.

    Kernels and their launcher fit one SM, torch and CUDA; drivers run what older ones ran.

    Raises:
        HardwareError: they differ; says both.
    """
    pairs = [
        ("the GPU", target, here.target, target == here.target),
        ("torch", versions.get("torch"), here.torch, versions.get("torch") == here.torch),
        ("CUDA", versions.get("cuda"), here.cuda, versions.get("cuda") == here.cuda),
        (
            "the driver",
            versions.get("driver"),
            here.driver,
            _parts(versions.get("driver")) <= _parts(here.driver),
        ),
    ]
    other = [f"{what} {then}, and here is {now}" for what, then, now, fits in pairs if not fits]
    if other:
        raise HardwareError(
            f"{package} was compiled for {'; for '.join(other)}. {_rebuild(package, here.target)}"
        )


def _parts(version: str | None) -> tuple[int, ...]:
    return tuple(int(part) for part in (version or "").split(".") if part.isdigit())


def _rebuild(package: Path, target: str | None) -> str:
    artifact = package.parent.parent
    return (
        f"Compile it for this machine with `vlmc rebuild {artifact} --engine inductor --target "
        f"{target or 'smXX'}`."
    )
