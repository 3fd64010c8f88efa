"""Compile the fused tower ahead of time: torch.export, then AOTInductor, weights left outside."""

from __future__ import annotations

from pathlib import Path

import torch

from vlmc.errors import HardwareError
from vlmc.models.fused_tower import FusedTower
from vlmc.models.inductor_needs import needs_of

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
    """
    device = tower.positions.device
    # A batch of one would be specialized.
    example = torch.zeros(max(2, opt_tiles), 448, 448, 3, dtype=torch.uint8, device=device)
    batch = torch.export.Dim("tiles", min=1, max=MAX_TILES)
    with torch.no_grad(), torch.cuda.device(device):
        program = torch.export.export(tower, (example,), dynamic_shapes={"tiles": {0: batch}})
        torch._inductor.aoti_compile_and_package(
            program, package_path=str(path), inductor_configs=CONFIGS
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
