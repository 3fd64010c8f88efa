"""Which engine is taken on which machine; the machines are told, and need not be there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.artifacts import copy_with
from vlmc import load, open_artifact
from vlmc.artifact.manifest import Manifest, read_manifest
from vlmc.errors import HardwareError, IntegrityError
from vlmc.machine.aoti_environment import AotiEnvironment
from vlmc.machine.gpu import Gpu
from vlmc.machine.packages import EnginePackage
from vlmc.models.vision.tower_precision import TowerPrecision
from vlmc.runtime.engines.selection import choose, find_device, judge, open_engine

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
FOLDER = Path("artifacts/x")
RTX = "1.7.1.116"
NEEDS = AotiEnvironment(target="sm90", torch="2.11.0+cu130", cuda="13.0", driver="580.95.05")


def entry(engine: str, target: str, version: str = RTX) -> dict[str, Any]:
    return {
        "engine": engine,
        "target": target,
        "precision": "fp32",
        "file": "vision/model.onnx",
        "profiles": [{"min": 1, "opt": 4, "max": 13}],
        "versions": {engine: version},
        "device_memory_bytes": None,
        "min_feature_cosine": 0.99999,
    }


@pytest.fixture
def manifest(artifact: Path, tmp_path: Path) -> Any:
    def made(*engines: dict[str, Any]) -> Manifest:
        folder = tmp_path / f"artifact-{len([*tmp_path.iterdir()])}"
        return read_manifest(copy_with(artifact, folder, engines=list(engines)))

    return made


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`gpu("sm89", installed)` lets `cuda:0` be that card, with these versions of packages."""

    def there(target: str, **installed: str) -> None:
        name = {"sm89": "NVIDIA L4", "sm90": "NVIDIA H100"}[target]
        monkeypatch.setattr(
            "vlmc.runtime.engines.selection.gpu_of", lambda index: Gpu(name, target, 24 << 30)
        )
        monkeypatch.setattr(
            EnginePackage, "version", property(lambda package: installed.get(package.module))
        )

    return there


def test_first_that_fits_in_the_manifests_order(manifest: Any, gpu: Any) -> None:
    gpu("sm89", tensorrt_rtx=RTX, tensorrt="10.13")
    held = manifest(
        entry("onnxruntime", "cpu"),
        entry("tensorrt-rtx", "sm86"),
        entry("tensorrt", "sm89", "10.13"),
        entry("tensorrt-rtx", "sm89"),
    )
    assert choose(held, FOLDER, CUDA).engine == "tensorrt"
    assert choose(held, FOLDER, CPU).engine == "onnxruntime"
    assert choose(held, FOLDER, CUDA, "tensorrt-rtx").target == "sm89"
    assert choose(held, FOLDER, CUDA, "onnxruntime").target == "cpu"
    assert [one.reason for one in judge(held, CUDA)] == [
        "runs on the CPU, and not on a GPU",
        "does not run on sm89",
        None,
        None,
    ]


def test_no_engine_fits_and_all_reasons_are_told(manifest: Any, gpu: Any) -> None:
    gpu("sm90", tensorrt="11.1")
    held = manifest(
        entry("tensorrt-rtx", "sm89"),
        entry("tensorrt", "sm90", "10.13"),
        entry("another", "sm90"),
    )
    with pytest.raises(HardwareError) as caught:
        choose(held, FOLDER, CUDA)
    assert str(caught.value) == (
        "no vision engine of artifacts/x runs on cuda:0 (NVIDIA H100, sm90): tensorrt-rtx for sm89 "
        "does not run on sm90; tensorrt for sm90 was built with tensorrt 10.13, and 11.1 is "
        "installed; another for sm90 is of a kind that this version of vlmc does not run; "
        "onnxruntime for cpu runs on the CPU, and not on a GPU. Build one with `vlmc "
        "rebuild artifacts/x --engine tensorrt --target sm90`, or run on the CPU with "
        "device='cpu' (--device cpu)."
    )


def test_missing_package_is_told_with_how_to_get_it(manifest: Any, gpu: Any) -> None:
    gpu("sm89")
    with pytest.raises(
        HardwareError, match=r"needs tensorrt_rtx 1\.7\.1\.116, which is not installed: pip"
    ):
        choose(manifest(entry("tensorrt-rtx", "sm89")), FOLDER, CUDA)


def test_engine_for_another_card_names_what_to_build(manifest: Any, gpu: Any) -> None:
    gpu("sm89", tensorrt_rtx=RTX)
    with pytest.raises(HardwareError, match="--engine tensorrt-rtx --target sm89"):
        choose(manifest(entry("onnxruntime", "cpu")), FOLDER, CUDA)
    gpu("sm90")
    with pytest.raises(HardwareError, match="--engine inductor --target sm90"):
        choose(manifest(entry("onnxruntime", "cpu")), FOLDER, CUDA)


def test_cpu_runs_the_graph_of_an_artifact_for_gpus(manifest: Any) -> None:
    chosen = choose(manifest(entry("tensorrt-rtx", "sm89")), FOLDER, CPU)
    assert (chosen.engine, chosen.target, chosen.file) == (
        "onnxruntime",
        "cpu",
        "vision/model.onnx",
    )
    assert chosen.profiles[0].max == 13


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, None),
        ({"driver": "590.1"}, None),
        ({"driver": "570.1"}, "the driver 580.95.05, but here is 570.1"),
        ({"torch": "2.11.0+cu129"}, "torch 2.11.0+cu130, but here is 2.11.0+cu129"),
        ({"cuda": "12.9"}, "CUDA 13.0, but here is 12.9"),
    ],
)
def test_package_of_kernels_fits_what_it_was_compiled_with(
    change: dict[str, str],
    told: str | None,
    manifest: Any,
    gpu: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu("sm90", torch="2.11.0")
    monkeypatch.setattr(
        "vlmc.runtime.engines.selection.aoti_environment_of",
        lambda device: replace(NEEDS, **change),
    )
    made = entry("inductor", "sm90", "2.11.0")
    made["versions"] |= NEEDS.versions()
    held = manifest(made)
    if told is None:
        assert choose(held, FOLDER, CUDA).engine == "inductor"
        return
    with pytest.raises(HardwareError) as caught:
        choose(held, FOLDER, CUDA)
    assert f"inductor for sm90 was compiled for {told};" in str(caught.value)
    assert "vlmc rebuild artifacts/x --engine inductor --target sm90" in str(caught.value)


def test_package_of_kernels_gets_the_artifacts_tower(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(
        "vlmc.runtime.engines.inductor_engine.InductorEngine", lambda *values: given.extend(values)
    )
    opened = open_artifact(artifact)
    described = replace(opened.manifest.engines[0], engine="inductor", target="sm90")
    open_engine(opened, described, CPU)
    package, told, tower, plan, device = given
    assert (package, told, device) == (artifact / described.file, described, CPU)
    assert plan == TowerPrecision(torch.float32)
    stored = load_file(artifact / "vision" / "tower.safetensors")
    weights = tower.state_dict()
    assert all(torch.equal(weights[name], stored[name].float()) for name in stored)
    with pytest.raises(IntegrityError, match=r"holds no vision/ranges\.json"):
        open_engine(opened, replace(described, precision="fp8"), CPU)


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch sees a GPU here")
def test_auto_is_never_the_cpu_beside_a_gpu(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not beside one that torch was built without either."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("vlmc.machine.gpu._DEVICES", tmp_path)
    (tmp_path / "nvidiactl").touch()
    assert find_device("auto") == CPU
    (tmp_path / "nvidia0").touch()
    with pytest.raises(HardwareError, match=r"sees 0 GPUs, and cuda was asked for\. Install"):
        load(artifact)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert find_device("auto") == CPU
