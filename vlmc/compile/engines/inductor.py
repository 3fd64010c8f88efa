"""Compile the fused tower ahead of time: torch.export, then AOTInductor, weights left outside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from zipfile import ZipFile, ZipInfo

import torch

from vlmc.artifact.manifest import Profile
from vlmc.compile.engines.cpp_compiler import explain, has_shared_runtime, static_runtime
from vlmc.errors import BuildError
from vlmc.files.atomic import atomic_path
from vlmc.files.hashing import file_sha256
from vlmc.files.strict_json import write_json
from vlmc.machine.aoti_environment import aoti_environment_of, device_for
from vlmc.machine.packages import PACKAGES
from vlmc.models.vision.aoti_package import AotiPackage
from vlmc.models.vision.fuse import fuse
from vlmc.models.vision.fused_tower import FusedLinear, FusedTower
from vlmc.models.vision.tower_file import read_tower_and_precision

MAX_TILES = 4096
CONFIGS = {
    "aot_inductor.package_constants_in_so": False,
    # Otherwise small weights would become part of the kernels.
    "always_keep_tensor_constants": True,
}
if hasattr(torch._inductor.config.aot_inductor, "enable_line_tables"):
    # They name files of the machine that compiles; torch before 2.12 writes none.
    CONFIGS["aot_inductor.enable_line_tables"] = False

_PRECISIONS = {
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float8_e4m3fn: "fp8",
}


def build_package(
    tower: Path,
    ranges: Path | None,
    folder: Path,
    *,
    target: str,
    precision: str,
    profiles: Sequence[Profile],
) -> None:
    """Compile an artifact's tower for `target` into the folder as `inductor-sm90.pt2`, say, and
    write what is known of it below `report/`. One package runs every profile.

    Raises:
        HardwareError: no GPU of this machine is the target.
        IntegrityError: `tower` or `ranges` is not what `vlmc build` writes.
        BuildError: a profile takes more tiles than a package runs, or torch cannot load it.
    """
    check_profiles(profiles)
    device = device_for(target)
    read, plan = read_tower_and_precision(tower, ranges, precision, device)
    fused = fuse(read, plan)
    del read  # the compiler takes memory of the GPU too
    path = folder / f"inductor-{target}.pt2"
    compile_tower(fused, path, opt_tiles=max(profile.opt for profile in profiles))
    values = {
        "engine": "inductor",
        "target": target,
        "version": PACKAGES["inductor"].version,
        "needs": aoti_environment_of(device).versions(),
        "sha256": file_sha256(path),
        "device_memory_bytes": memory_of_runs(path, fused, [profile.max for profile in profiles]),
        "layers": linears_by_precision(fused),
    }
    (folder / "report").mkdir()
    write_json(folder / "report" / f"vision-inductor-{target}.json", values)


def check_profiles(profiles: Sequence[Profile]) -> None:
    """Refuse batches that a package does not run.

    Raises:
        BuildError: naming the first such profile.
    """
    for index, profile in enumerate(profiles):
        if profile.max > MAX_TILES:
            raise BuildError(
                f"vision.profiles[{index}] has max {profile.max}, and inductor takes at most "
                f"{MAX_TILES} tiles at once. Lower its max: larger batches are split."
            )


def linears_by_precision(tower: FusedTower) -> dict[str, dict[str, int]]:
    """Kind of layer → precision → number of layers: of the linears, by what they multiply."""
    linears = (module for module in tower.modules() if isinstance(module, FusedLinear))
    counts = Counter(_PRECISIONS[linear.weight.dtype] for linear in linears)
    return {"matrix_multiply": dict(sorted(counts.items()))}


def compile_tower(tower: FusedTower, path: Path, opt_tiles: int) -> None:
    """Write the package `path` for the GPU that holds `tower`; any number of tiles runs.

    The package holds kernels and no weights: those are given when it is loaded. Kernels are
    chosen for batches of `opt_tiles`. Takes a C++ compiler and CUDA's headers.

    Raises:
        BuildError: the compiler fails, or makes packages that torch cannot load.
    """
    device = tower.positions.device
    # A batch of one would be specialized.
    example = torch.zeros(max(2, opt_tiles), 448, 448, 3, dtype=torch.uint8, device=device)
    batch = torch.export.Dim("tiles", min=1, max=MAX_TILES)
    current = torch.cuda.device(device) if device.type == "cuda" else nullcontext()
    with torch.no_grad(), current:
        program = torch.export.export(tower, (example,), dynamic_shapes={"tiles": {0: batch}})
        try:
            torch._inductor.aoti_compile_and_package(
                program, package_path=str(path), inductor_configs=CONFIGS
            )
        except RuntimeError as error:
            raise explain(error, "the vision tower") from error
    check_runtime(path)
    drop_sources(path)


def memory_of_runs(package: Path, tower: FusedTower, batches: Sequence[int]) -> int:
    """Load what was compiled for `tower` on CUDA and run it on these numbers of tiles.

    Returns:
        The most memory in bytes that the device gave beside weights and tiles.

    Raises:
        BuildError: it fails on so many tiles, as where memory is short.
    """
    device = tower.positions.device
    loaded = AotiPackage(package, tower.state_dict(), device)
    most = 0
    with torch.inference_mode(), torch.cuda.device(device):
        for batch in batches:
            tiles = torch.zeros(batch, 448, 448, 3, dtype=torch.uint8, device=device)
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            try:
                loaded.run(tiles)
                torch.cuda.synchronize()
            except RuntimeError as error:
                raise BuildError(
                    f"the package that was compiled does not run {batch} tiles at once on "
                    f"{torch.cuda.get_device_name()}: {error}. Where memory is short, lower the "
                    "max of vision.profiles: larger batches are split."
                ) from error
            most = max(most, torch.cuda.max_memory_allocated() - before)
    loaded.close()
    return most


def drop_sources(package: Path) -> None:
    """Empty the generated C++, which names folders of the machine that compiled it."""
    with (
        atomic_path(package) as rewritten,
        ZipFile(package) as read,
        ZipFile(rewritten, "w") as written,
    ):
        for entry in read.infolist():
            # The files stay: by their names torch finds others.
            kept = b"" if entry.filename.endswith(".cpp") else read.read(entry)
            written.writestr(ZipInfo(entry.filename), kept)


def check_runtime(package: Path) -> None:
    """Refuse a package with a C++ runtime of its own.

    Raises:
        BuildError: the package's library does not ask for the shared libstdc++.
    """
    with ZipFile(package) as archive:
        libraries = [name for name in archive.namelist() if name.endswith(".so")]
        shared = [has_shared_runtime(archive.read(name)) for name in libraries]
    if not shared or not all(shared):
        raise BuildError(static_runtime(str(package)))
