"""What a package of AOTInductor is bound to: written when it is compiled, checked when loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlmc.machine.gpu import driver_version, gpu_of

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Needs:
    """SM of the GPU, such as sm90, and versions of torch, of its CUDA and of the driver."""

    target: str
    torch: str
    cuda: str
    driver: str

    def versions(self) -> dict[str, str]:
        """As an artifact's manifest keeps them beside the target."""
        return {"torch": self.torch, "cuda": self.cuda, "driver": self.driver}


def needs_of(device: torch.device) -> Needs:
    """What a package compiled on `device` needs, which is what one loaded there finds."""
    import torch

    return Needs(
        target=gpu_of(device.index or 0).target,
        torch=str(torch.__version__),
        cuda=str(torch.version.cuda),
        driver=driver_version() or "unknown",
    )
