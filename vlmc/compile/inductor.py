"""Compile the fused tower ahead of time: torch.export, then AOTInductor, weights left outside."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from zipfile import ZipFile

import torch

from vlmc.errors import BuildError, HardwareError
from vlmc.machine.inductor_needs import needs_of
from vlmc.models.fused_tower import FusedTower

MAX_TILES = 4096
CONFIGS = {
    "aot_inductor.package_constants_in_so": False,
    # Otherwise small weights would become part of the kernels.
    "always_keep_tensor_constants": True,
}


def compile_tower(tower: FusedTower, path: Path, opt_tiles: int) -> None:
    """Write the package `path` for the GPU that holds `tower`; any number of tiles runs.

    The package holds kernels and no weights: those are given when it is loaded. Kernels are
    chosen for batches of `opt_tiles`. Takes a C++ compiler and CUDA's headers.

    Raises:
        BuildError: the compiler makes packages that torch cannot load.
    """
    device = tower.positions.device
    # A batch of one would be specialized.
    example = torch.zeros(max(2, opt_tiles), 448, 448, 3, dtype=torch.uint8, device=device)
    batch = torch.export.Dim("tiles", min=1, max=MAX_TILES)
    current = torch.cuda.device(device) if device.type == "cuda" else nullcontext()
    with torch.no_grad(), current:
        program = torch.export.export(tower, (example,), dynamic_shapes={"tiles": {0: batch}})
        torch._inductor.aoti_compile_and_package(
            program, package_path=str(path), inductor_configs=CONFIGS
        )
    check_runtime(path)


def check_runtime(package: Path) -> None:
    """Refuse a package with a C++ runtime of its own: torch's beside it, loading it crashes.

    Raises:
        BuildError: the package's library does not ask for the shared libstdc++.
    """
    with ZipFile(package) as archive:
        libraries = [name for name in archive.namelist() if name.endswith(".so")]
        shared = [b"libstdc++.so" in archive.read(name) for name in libraries]
    if not shared or not all(shared):
        raise BuildError(
            f"{package}: the C++ compiler linked libstdc++ into the package, which torch cannot "
            "load beside its own. Install the compiler's libstdc++.so (it belongs beside the file "
            "that `g++ -print-file-name=libstdc++.a` names), or name another compiler in CXX."
        )


def device_for(target: str) -> torch.device:
    """The GPU of this machine that packages for `target`, such as sm90, are compiled on.

    Raises:
        HardwareError: there is none.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = [needs_of(torch.device("cuda", index)).target for index in range(count)]
    if target in found:
        return torch.device("cuda", found.index(target))
    here = f"the GPUs here are {', '.join(found)}" if found else "torch sees no GPU here"
    raise HardwareError(
        f"the inductor engine for {target} is compiled on such a GPU, and {here}. Build it on a "
        "machine that has one, or take another engine."
    )
