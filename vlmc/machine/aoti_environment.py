"""The environment of an AOTInductor package, recorded when compiled and checked when loaded."""

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
    """Target GPU, such as sm90, and versions of torch, CUDA and the driver."""

    target: str
    torch: str
    cuda: str
    driver: str

    def versions(self) -> dict[str, str]:
        """The versions as stored in an artifact's manifest."""
        return {"torch": self.torch, "cuda": self.cuda, "driver": self.driver}


def aoti_environment_of(device: torch.device) -> AotiEnvironment:
    """The environment of packages that are compiled or loaded on `device`."""
    import torch

    return AotiEnvironment(
        target=gpu_of(device.index or 0).target,
        torch=str(torch.__version__),
        cuda=str(torch.version.cuda),
        driver=driver_version() or "unknown",
    )


def device_for(target: str) -> torch.device:
    """A GPU of this machine with the compute capability `target`, such as sm90.

    Raises:
        HardwareError: there is no such GPU.
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
        f"one has {here}{unseen}. Either run `vlmc build` there with --steps "
        f"vision.inductor-{target}, the same packages (here: torch {torch.__version__}) and "
        "VLMC_CACHE set to the same shared folder, and then build here. Or remove that engine from "
        "vision.engines, build here, and add it on such a machine with `vlmc rebuild`."
    )


def differences(versions: Mapping[str, str], target: str, here: AotiEnvironment) -> list[str]:
    """How a package's environment differs from `here`, such as `CUDA 12.9, but here is 13.0`.

    The target and the versions of torch and CUDA must be equal. The driver must not be older.
    """
    torch, cuda, driver = (versions.get(name) for name in ("torch", "cuda", "driver"))
    pairs = [
        ("the GPU", target, here.target, target == here.target),
        ("torch", torch, here.torch, torch == here.torch),
        ("CUDA", cuda, here.cuda, cuda == here.cuda),
        ("the driver", driver, here.driver, _parts(driver) <= _parts(here.driver)),
    ]
    return [f"{what} {then}, but here is {now}" for what, then, now, fits in pairs if not fits]


def torch_cuda() -> str:
    """CUDA version of the installed torch, such as 13.0, or `none`. Does not import torch."""
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
