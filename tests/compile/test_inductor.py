"""AOTInductor packages: where they are compiled, and all that the CPU shows of them.

On the GPU they are in tests/gpu.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch

from tests.models.fused import TOWERS, some_tiles, tower_of
from vlmc.compile.inductor import check_runtime, compile_tower, device_for
from vlmc.errors import BuildError, HardwareError
from vlmc.models.fuse import fuse
from vlmc.models.fused_plan import FusedPlan
from vlmc.runtime.engines.aoti_package import AotiPackage

FP32 = FusedPlan(torch.float32)
CPU = torch.device("cpu")


def test_a_target_that_no_gpu_here_has_is_refused() -> None:
    with pytest.raises(HardwareError, match=r"inductor engine for sm61 is compiled on such a GPU"):
        device_for("sm61")


@pytest.mark.parametrize("linked", ["shared", "static", "nothing"])
def test_a_cpp_runtime_of_its_own_is_found(linked: str, tmp_path: Path) -> None:
    package = tmp_path / "inductor.pt2"
    needed = b"\0libstdc++.so.6\0" if linked == "shared" else b"\0libc.so.6\0"
    with ZipFile(package, "w") as archive:
        name = "metadata.json" if linked == "nothing" else "data/aotinductor/model/wrapper.so"
        archive.writestr(name, b"\x7fELF" + needed)
    if linked == "shared":
        check_runtime(package)
    else:
        with pytest.raises(BuildError, match=r"linked libstdc\+\+ into the package"):
            check_runtime(package)


@pytest.mark.slow  # the C++ compiler takes a minute
def test_weights_stay_outside_and_any_batch_runs(
    miniatures: Callable[[str], Path], tmp_path: Path
) -> None:
    fused, package = fuse(tower_of(miniatures(TOWERS[0])), FP32), tmp_path / "inductor.pt2"
    compile_tower(fused, package, opt_tiles=3)
    weights = dict(fused.state_dict())
    # The same kernels, other weights.
    other = {name: tensor * 1.5 for name, tensor in weights.items()}
    loaded, changed = AotiPackage(package, weights, CPU), AotiPackage(package, other, CPU)
    for count in (1, 2, 5):
        tiles = some_tiles(count)
        with torch.inference_mode():
            expected = fused(tiles)
        found = loaded.run(tiles)
        assert float((found - expected).norm() / expected.norm()) <= 1e-5
        assert float((changed.run(tiles) - expected).norm() / expected.norm()) > 0.1
    with pytest.raises(HardwareError, match=r"asks for 1 weights .* first embedding\.weight"):
        AotiPackage(package, {n: t for n, t in weights.items() if n != "embedding.weight"}, CPU)
    package.write_bytes(b"not a package")
    with pytest.raises(HardwareError, match=r"cannot load .*vlmc rebuild"):
        AotiPackage(package, weights, CPU)
