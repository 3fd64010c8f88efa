"""What a package of AOTInductor is bound to: written when it is compiled, checked when loaded."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from vlmc.errors import HardwareError
from vlmc.machine.gpu import driver_version, gpu_of, gpus

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class AotiEnvironment:
    """SM of the GPU, such as sm90, and versions of torch, of its CUDA and of the driver."""

    target: str
    torch: str
    cuda: str
    driver: str

    def versions(self) -> dict[str, str]:
        """As an artifact's manifest keeps them beside the target."""
        return {"torch": self.torch, "cuda": self.cuda, "driver": self.driver}


def aoti_environment_of(device: torch.device) -> AotiEnvironment:
    """What a package compiled on `device` needs, which is what one loaded there finds."""
    import torch

    return AotiEnvironment(
        target=gpu_of(device.index or 0).target,
        torch=str(torch.__version__),
        cuda=str(torch.version.cuda),
        driver=driver_version() or "unknown",
    )


def device_for(target: str) -> torch.device:
    """The GPU of this machine that packages for `target`, such as sm90, are compiled on.

    Raises:
        HardwareError: this machine has no such GPU.
    """
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = [aoti_environment_of(torch.device("cuda", index)).target for index in range(count)]
    if target in found:
        return torch.device("cuda", found.index(target))
    here = ", ".join(f"{gpu.name} ({gpu.target})" for gpu in gpus()) or "no GPU"
    unseen = f", which torch {torch.__version__} does not see" if gpus() and not found else ""
    raise HardwareError(
        f"the step vision.inductor-{target} must run on a machine with an {target} GPU, and this "
        f"one has {here}{unseen}. Run the same command there. With VLMC_CACHE naming the same "
        "folder on both, and the same packages installed (torch's build for CUDA too, and here is "
        f"{torch.__version__}), a build here takes that step from there: --steps "
        f"vision.inductor-{target} makes it alone. Without that engine in vision.engines an "
        "artifact is built now, and `vlmc rebuild` adds it on such a machine."
    )


def differences(versions: Mapping[str, str], target: str, here: AotiEnvironment) -> list[str]:
    """In what a package, by its target and the versions that a manifest has of it, does not fit
    `here`; each names both sides, such as `CUDA 12.9, and here is 13.0`.

    Kernels and their launcher fit one SM, torch and CUDA; drivers run what older ones ran.
    """
    torch, cuda, driver = (versions.get(name) for name in ("torch", "cuda", "driver"))
    pairs = [
        ("the GPU", target, here.target, target == here.target),
        ("torch", torch, here.torch, torch == here.torch),
        ("CUDA", cuda, here.cuda, cuda == here.cuda),
        ("the driver", driver, here.driver, _parts(driver) <= _parts(here.driver)),
    ]
    return [f"{what} {then}, and here is {now}" for what, then, now, fits in pairs if not fits]


def torch_cuda() -> str:
    """The CUDA that the installed torch is for, such as 13.0, or `none`. Imports no torch."""
    spec = find_spec("torch")
    folders = [] if spec is None else spec.submodule_search_locations or []
    for folder in folders:
        for node in ast.parse((Path(folder) / "version.py").read_bytes()).body:
            match node:
                case (
                    ast.AnnAssign(target=ast.Name("cuda"), value=ast.Constant(str(version)))
                    | ast.Assign(targets=[ast.Name("cuda")], value=ast.Constant(str(version)))
                ):
                    return version
    return "none"


def _parts(version: str | None) -> tuple[int, ...]:
    return tuple(int(part) for part in (version or "").split(".") if part.isdigit())
