"""AOTInductor packages: where they are compiled, and all that the CPU shows of them.

On the GPU they are in tests/gpu.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch

from tests.models.vision.fused import TOWERS, some_tiles
from vlmc.artifact.manifest import Profile
from vlmc.artifact.vision_files import TOWER
from vlmc.checkpoint.source import open_checkpoint
from vlmc.compile.engines.inductor import build_package, check_profiles, check_runtime
from vlmc.compile.vision import write_weights
from vlmc.errors import BuildError, HardwareError
from vlmc.files.hashing import file_sha256
from vlmc.machine.aoti_environment import AotiEnvironment, device_for
from vlmc.machine.gpu import Gpu
from vlmc.models.vision.aoti_package import AotiPackage
from vlmc.models.vision.fuse import fuse
from vlmc.models.vision.tower_file import read_tower_and_precision

HERE = AotiEnvironment(target="sm90", torch="2.11.0+cu130", cuda="13.0", driver="580.95.05")
CPU = torch.device("cpu")


def test_a_target_that_no_gpu_here_has_is_refused() -> None:
    with pytest.raises(HardwareError, match=r"must run on a machine with an sm61 GPU.*--steps"):
        device_for("sm61")


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch sees a GPU here")
def test_a_gpu_that_torch_does_not_see_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = (Gpu("NVIDIA H100", "sm90", 80 << 30),)
    monkeypatch.setattr("vlmc.machine.aoti_environment.gpus", lambda: cards)
    with pytest.raises(HardwareError, match=r"NVIDIA H100 \(sm90\), which torch .* does not see"):
        device_for("sm90")


def test_a_batch_that_no_package_runs_is_refused() -> None:
    check_profiles([Profile(1, 4, 4096)])
    with pytest.raises(BuildError, match=r"profiles\[1\] has max 4097, .* at most 4096 tiles"):
        check_profiles([Profile(1, 4, 13), Profile(14, 26, 4097)])


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
        with pytest.raises(BuildError, match=r"contains libstdc\+\+: .*links it statically"):
            check_runtime(package)


@pytest.mark.slow  # the C++ compiler takes a minute
def test_weights_stay_outside_and_any_batch_runs(
    miniatures: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmc.compile.engines.inductor.device_for", lambda target: CPU)
    monkeypatch.setattr("vlmc.compile.engines.inductor.aoti_environment_of", lambda device: HERE)
    monkeypatch.setattr("vlmc.compile.engines.inductor.memory_of_runs", lambda *_: 7)
    with open_checkpoint(miniatures(TOWERS[0])) as checkpoint:
        write_weights(checkpoint, tmp_path)
    profiles = [Profile(1, 1, 2), Profile(3, 3, 8)]
    build_package(
        tmp_path / TOWER, None, tmp_path, target="sm90", precision="fp32", profiles=profiles
    )
    package = tmp_path / "inductor-sm90.pt2"
    report = json.loads((tmp_path / "report" / "vision-inductor-sm90.json").read_text())
    assert (report["sha256"], report["needs"]) == (file_sha256(package), HERE.versions())
    assert report["device_memory_bytes"] == 7
    with ZipFile(package) as archive:
        assert not any(archive.read(n) for n in archive.namelist() if n.endswith(".cpp"))
    fused = fuse(*read_tower_and_precision(tmp_path / TOWER, None, "fp32", CPU))
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
    with pytest.raises(HardwareError, match=r"needs 1 weights .* first embedding\.weight"):
        AotiPackage(package, {n: t for n, t in weights.items() if n != "embedding.weight"}, CPU)
    package.write_bytes(b"not a package")
    with pytest.raises(HardwareError, match=r"cannot load .*vlmc rebuild"):
        AotiPackage(package, weights, CPU)
