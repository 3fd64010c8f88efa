"""Compile the fused tower with torch.export and AOTInductor, without its weights."""

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
    # Otherwise small weights are embedded in the kernels.
    "always_keep_tensor_constants": True,
}
if hasattr(torch._inductor.config.aot_inductor, "enable_line_tables"):
    # Line tables contain paths of the build machine; torch before 2.12 does not write them.
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
    """Compile a package, such as `inductor-sm90.pt2`, and write a report below `report/`.

    One package runs all profiles.

    Args:
        tower: path of `tower.safetensors`.
        ranges: path of `ranges.json`, if the artifact has one.
        folder: where to write.
        target: compute capability, such as `sm90`.
        precision: the artifact's vision precision.
        profiles: batch sizes in tiles.

    Raises:
        HardwareError: no GPU of this machine is the target.
        IntegrityError: `tower` or `ranges` is not valid.
        BuildError: a profile has too many tiles, or the package does not run.
    """
    check_profiles(profiles)
    device = device_for(target)
    loaded, tower_precision = read_tower_and_precision(tower, ranges, precision, device)
    fused = fuse(loaded, tower_precision)
    del loaded  # the compiler needs GPU memory too
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
    """Check that a package supports the profiles' batch sizes.

    Raises:
        BuildError: a profile has too many tiles; names the first.
    """
    for index, profile in enumerate(profiles):
        if profile.max > MAX_TILES:
            raise BuildError(
                f"vision.profiles[{index}] has max {profile.max}, but inductor takes at most "
                f"{MAX_TILES} tiles at once. Lower its max: larger batches are split."
            )


def linears_by_precision(tower: FusedTower) -> dict[str, dict[str, int]]:
    """Kind of layer → precision of the weight → number of linears."""
    linears = (module for module in tower.modules() if isinstance(module, FusedLinear))
    counts = Counter(_PRECISIONS[linear.weight.dtype] for linear in linears)
    return {"matrix_multiply": dict(sorted(counts.items()))}


def compile_tower(tower: FusedTower, path: Path, opt_tiles: int) -> None:
    """Compile `tower` for its device into the package `path`, for any number of tiles.

    The package contains kernels only; weights are passed at load time. Compilation needs a C++
    compiler and the CUDA headers.

    Args:
        tower: the fused tower.
        path: the package to write.
        opt_tiles: the batch size that kernels are tuned for.

    Raises:
        BuildError: the compiler fails, or creates packages that torch cannot load.
    """
    device = tower.positions.device
    # torch.export specializes a batch of one.
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
    """Run a compiled package on CUDA with each batch size, and measure its memory.

    Returns:
        Peak device memory in bytes, without weights and tiles.

    Raises:
        BuildError: a run fails, for example because memory is too small.
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
                    f"the compiled package cannot run {batch} tiles at once on "
                    f"{torch.cuda.get_device_name()}: {error}. If memory is too small, lower the "
                    "max of vision.profiles: larger batches are split."
                ) from error
            most = max(most, torch.cuda.max_memory_allocated() - before)
    loaded.close()
    return most


def drop_sources(package: Path) -> None:
    """Remove the content of generated C++ files, which contain paths of the build machine."""
    with (
        atomic_path(package) as rewritten,
        ZipFile(package) as read,
        ZipFile(rewritten, "w") as written,
    ):
        for entry in read.infolist():
            # Keep empty files, because torch locates other files by their names.
            kept = b"" if entry.filename.endswith(".cpp") else read.read(entry)
            written.writestr(ZipInfo(entry.filename), kept)


def check_runtime(package: Path) -> None:
    """Check that a package uses the shared libstdc++, because loading a second one crashes.

    Raises:
        BuildError: libstdc++ is linked statically.
    """
    with ZipFile(package) as archive:
        libraries = [name for name in archive.namelist() if name.endswith(".so")]
        shared = [has_shared_runtime(archive.read(name)) for name in libraries]
    if not shared or not all(shared):
        raise BuildError(static_runtime(str(package)))
