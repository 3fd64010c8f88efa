"""What `vlmc doctor` says of machines and artifacts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.artifacts import copy_with
from tests.command import call
from tests.runtime.engines.sabotage import sabotaged
from vlmc.artifact.manifest import read_manifest
from vlmc.machine.gpu import Gpu
from vlmc.machine.packages import EnginePackage
from vlmc.machine.support import ENGINES
from vlmc.runtime import doctor


def machine(
    monkeypatch: pytest.MonkeyPatch, *targets: str, driver: str = "580.95.05", **installed: str
) -> dict[str, str | None]:
    """Reasons by engine on a machine with these GPUs, driver and packages."""
    cards = tuple(Gpu(f"card {target}", target, 1 << 30) for target in targets)
    monkeypatch.setattr(doctor, "gpus", lambda: cards)
    monkeypatch.setattr(doctor, "driver_version", lambda: driver)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        EnginePackage, "version", property(lambda package: installed.get(package.module))
    )
    monkeypatch.setattr(
        EnginePackage,
        "cuda",
        property(lambda package: "13" if package.module == "tensorrt_rtx" else None),
    )
    return {engine.engine: engine.reason for engine in doctor.examine().engines}


def test_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = {"onnxruntime": "1", "tensorrt": "11", "tensorrt_rtx": "1.7", "torch": "2"}
    assert set(machine(monkeypatch, "sm89", **everything).values()) == {None}
    hopper = machine(monkeypatch, "sm90", **everything)
    assert hopper == dict.fromkeys(hopper) | {
        "tensorrt-rtx": "runs on sm75, sm80, sm86, sm89, sm120, sm121, not on sm90"
    }
    old = machine(monkeypatch, "sm89", driver="570.1", **everything)
    assert old["tensorrt-rtx"] == "is built for CUDA 13, which needs driver 580 or newer"
    assert old["tensorrt"] is None
    bare = machine(monkeypatch, onnxruntime="1", torch="2")
    assert bare["onnxruntime"] is None
    assert bare["inductor"] == "needs a GPU, but this machine has none"
    assert "pypi.nvidia.com" in str(bare["tensorrt"])


def test_machine_alone() -> None:
    told = json.loads(call("doctor", "--json").stdout)
    assert {engine["engine"] for engine in told["engines"]} == {*ENGINES}
    assert told["artifact"] is None
    text = call("doctor").stdout
    for part in (told["cpu"], told["torch"], "onnxruntime"):
        assert part in text


def test_artifact_on_this_machine(artifact: Path, tmp_path: Path) -> None:
    plan: dict[str, Any] = {
        "engine": "tensorrt-rtx",
        "target": "sm89",
        "precision": "fp32",
        "file": "vision/golden.npz",
        "profiles": [],
        "versions": {},
        "device_memory_bytes": None,
        "min_feature_cosine": 0.99999,
    }
    folder = copy_with(artifact, tmp_path / "artifact", engines=[plan])
    result = call("doctor", folder, "--device", "cpu", "--json")
    assert result.exit_code == 0
    told = json.loads(result.stdout)["artifact"]
    assert told["identity"] == read_manifest(folder).identity
    assert told["engines"] == [
        {
            "engine": "tensorrt-rtx",
            "target": "sm89",
            "reason": "runs on a GPU, and not on the CPU",
        },
        {"engine": "onnxruntime", "target": "cpu", "reason": None},
    ]
    assert told["taken"] == {"engine": "onnxruntime", "target": "cpu"}
    assert told["self_test"]["passed"]
    text = call("doctor", folder, "--device", "cpu").stdout
    assert "onnxruntime for cpu is used" in text
    assert "passed: worst cosine 1.0000" in text


def test_artifact_that_computes_wrong_features(artifact: Path, tmp_path: Path) -> None:
    folder = sabotaged(artifact, tmp_path / "artifact")
    result = call("doctor", folder, "--device", "cpu", "--json")
    assert result.exit_code == 5
    told = json.loads(result.stdout)["artifact"]
    assert told["self_test"]["passed"] is False
    assert "golden tile" in told["problem"]
    assert "failed: worst cosine" in call("doctor", folder, "--device", "cpu").stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a GPU that is not there")
def test_device_that_is_not_there(artifact: Path) -> None:
    result = call("doctor", artifact, "--device", "cuda", "--json")
    assert result.exit_code == 5
    assert "sees 0 GPUs" in json.loads(result.stdout)["artifact"]["problem"]
