"""What a package of AOTInductor is bound to: written when it is compiled, checked when loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

_DRIVER = Path("/sys/module/nvidia/version")


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
    major, minor = torch.cuda.get_device_capability(device)
    return Needs(
        target=f"sm{major}{minor}",
        torch=str(torch.__version__),
        cuda=str(torch.version.cuda),
        driver=_DRIVER.read_text(encoding="ascii").strip() if _DRIVER.exists() else "unknown",
    )
