"""Engines for other cards, from what an artifact holds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.builder.inductor import NEEDS, compiles_here
from tests.command import call
from vlmc import load
from vlmc.artifact.engine_summary import engine_layers, engine_products
from vlmc.artifact.identity import IDENTITY
from vlmc.artifact.integrity import open_artifact
from vlmc.artifact.manifest import MANIFEST, Profile, read_manifest
from vlmc.artifact.write import seal
from vlmc.errors import IntegrityError, UsageError
from vlmc.files.hashing import file_sha256
from vlmc.machine.support import ENGINES as ENGINE_NAMES
from vlmc.machine.support import REBUILT
from vlmc.recipe.read import read_recipe

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX has wheels for Linux on x86-64 alone")

ENGINES = "vision.engines=[{engine: tensorrt-rtx, targets: [sm89]}, {engine: onnxruntime}]"
PROFILES = "vision.profiles=[{min: 1, opt: 2, max: 4}, {min: 5, opt: 8, max: 26}]"


@pytest.fixture
def source(quick_build: Callable[..., Path], tmp_path: Path) -> Path:
    """An artifact for sm89 and the CPU."""
    return quick_build([ENGINES, PROFILES], tmp_path / "source")


def test_build_holds_a_plan_for_each_target(source: Path) -> None:
    manifest = open_artifact(source).manifest
    plan, graph = manifest.engines
    assert (plan.engine, plan.target, plan.precision) == ("tensorrt-rtx", "sm89", "fp32")
    assert plan.file == "vision/tensorrt-rtx-sm89.engine"
    assert plan.profiles == graph.profiles == (Profile(1, 2, 4), Profile(5, 8, 26))
    assert set(plan.versions) == {"tensorrt-rtx", "cuda"}
    assert plan.device_memory_bytes is not None
    assert graph.device_memory_bytes is None
    data = (source / plan.file).read_bytes()
    assert not any(str(place).encode() in data for place in (source.parent, Path.home()))
    layers = engine_layers(source, manifest, plan)
    assert layers is not None
    assert layers["matrix_multiply"].keys() == {"fp32"}
    products = engine_products(source, manifest, plan)
    assert products is not None and products.keys() == {"fp32"}
    told = call("inspect", source).stdout
    for part in (
        "1 to 4 tiles, fastest at 2; 5 to 26 tiles, fastest at 8",
        f"{plan.device_memory_bytes:,} bytes of device memory",
        "needs driver 580 or newer",
        "matrix_multiply ",
        f"{products['fp32']} fp32 in the engine, over all profiles",
    ):
        assert part in told
    read = read_recipe(source / "recipe.yaml")
    assert [(part.engine, part.targets) for part in read.vision.engines] == [
        ("tensorrt-rtx", ("sm89",)),
        ("onnxruntime", ()),
    ]


def test_report_of_another_plan_is_not_told(source: Path) -> None:
    manifest = read_manifest(source)
    path = source / "reports" / "vision-tensorrt-rtx-sm89.json"
    values = json.loads(path.read_text())
    for text in (json.dumps(values | {"sha256": "0" * 64}), "{", "[]", '{"layers": 1}'):
        path.write_text(text)
        assert engine_layers(source, manifest, manifest.engines[0]) is None
        assert engine_products(source, manifest, manifest.engines[0]) is None


def test_rebuild_needs_no_checkpoint(
    quick_build: Callable[..., Path], miniature: Path, tmp_path: Path
) -> None:
    checkpoint = shutil.copytree(miniature, tmp_path / "checkpoint")
    source = quick_build([ENGINES, PROFILES], tmp_path / "source", checkpoint)
    shutil.rmtree(checkpoint)
    before = {path: file_sha256(path) for path in source.rglob("*") if path.is_file()}
    result = call(
        *("rebuild", source, "--engine", "tensorrt-rtx", "--target", "sm86", "--target", "sm80"),
        "--json",
    )
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    folder = Path(told["artifact"])
    assert folder == tmp_path / f"miniature-{told['identity'][:8]}"
    old, new = open_artifact(source).manifest, open_artifact(folder).manifest
    assert [(engine.engine, engine.target) for engine in new.engines] == [
        ("tensorrt-rtx", "sm86"),
        ("tensorrt-rtx", "sm80"),
        ("onnxruntime", "cpu"),
    ]
    assert new.engines[2] == old.engines[1]
    assert new.engines[0].profiles == old.engines[0].profiles
    assert (new.name, new.source, new.tools) == (old.name, old.source, old.tools)
    changed = {
        name for name in old.payload | new.payload if old.payload.get(name) != new.payload.get(name)
    }
    assert changed == {
        "recipe.yaml",
        *(f"vision/tensorrt-rtx-sm{number}.engine" for number in (80, 86, 89)),
    }
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    was = yaml.safe_load((source / "recipe.yaml").read_text())
    assert recipe["vision"].pop("engines") == [
        {"engine": "tensorrt-rtx", "targets": ["sm86", "sm80"]},
        {"engine": "onnxruntime"},
    ]
    was["vision"].pop("engines")
    assert recipe == was
    report = json.loads((folder / "reports" / "build.json").read_text())
    assert report["rebuilt_from"] == old.identity
    assert {path: file_sha256(path) for path in before} == before, "the old one is immutable"
    with load(folder, device="cpu", tiles="single") as model:
        assert model.generate([(None, "Hello")])


def test_rebuild_of_one_without_plans_and_again(
    artifact: Path, tmp_path: Path, source: Path
) -> None:
    arguments = ("rebuild", artifact, "--engine", "tensorrt-rtx", "--target", "sm89")
    first = call(*arguments, "-o", tmp_path / "new")
    assert first.exit_code == 0, first.stderr
    again = call(*arguments, "-o", tmp_path / "new")
    assert again.exit_code == 0, "the step is cached, so that the artifact is the same"
    assert "cached" in again.stderr
    other = call(*arguments, "-o", source)
    assert (other.exit_code, "is another artifact" in other.stderr) == (2, True)


@pytest.mark.parametrize(
    ("engine", "target", "said"),
    [
        ("tensorrt-rtx", "sm90", "refuses Hopper. Allowed with tensorrt-rtx and fp32: sm80, sm86"),
        ("tensorrt-rtx", "sm88", "the target is unknown (known: sm75, sm80"),
        ("tensorrt-rtx", "sm75", "no fp32 matrix products"),
        ("inductor", "sm88", "the target is unknown"),
        ("onnxruntime", "sm89", "is not one of tensorrt, tensorrt-rtx, inductor. Every artifact"),
        ("openvino", "sm89", "is not one of tensorrt, tensorrt-rtx, inductor."),
    ],
)
def test_what_cannot_be(engine: str, target: str, said: str, artifact: Path) -> None:
    result = call("rebuild", artifact, "--engine", engine, "--target", target)
    assert result.exit_code == UsageError.exit_code
    assert said in result.stderr


def test_help_names_the_engines_that_can_be_rebuilt() -> None:
    said = " ".join(call("rebuild", "--help").stdout.split())
    assert "The engine to build: tensorrt, tensorrt-rtx or inductor." in said


@pytest.mark.skipif(torch.cuda.is_available(), reason="the machine's GPU may be the target")
def test_full_tensorrt_names_the_machine(artifact: Path, tmp_path: Path) -> None:
    result = call("rebuild", artifact, "--engine", "tensorrt", "--target", "sm90")
    assert result.exit_code == 5
    assert "vision.tensorrt-sm90 must run on a machine with an sm90 GPU" in result.stderr


def test_damaged_artifact_is_not_rebuilt(artifact: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(artifact, tmp_path / "damaged")
    (folder / "vision" / "model.onnx").write_bytes(b"x")
    result = call("rebuild", folder, "--engine", "tensorrt-rtx", "--target", "sm89")
    assert result.exit_code == IntegrityError.exit_code


def test_file_changed_while_it_is_copied(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaging(old: Path, new: Path) -> None:
        new.write_bytes(old.read_bytes() + (b" " if old.suffix == ".npz" else b""))

    monkeypatch.setattr("vlmc.builder.rebuild.copy_file", damaging)
    result = call(
        *("rebuild", artifact, "--engine", "tensorrt-rtx", "--target", "sm89"),
        *("-o", tmp_path / "new"),
    )
    assert result.exit_code == 4
    assert "golden.npz was changed while it was copied" in result.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_rebuild_with_inductor(
    precision: str,
    quick_build: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = quick_build([f"vision.precision={precision}"], tmp_path / "source")
    arguments = ("rebuild", source, "--engine", "inductor", "--target", "sm90")
    monkeypatch.setattr("vlmc.machine.aoti_environment.gpus", lambda: ())
    refused = call(*arguments, "-o", tmp_path / "nowhere")
    assert (refused.exit_code, "on a machine with an sm90 GPU" in refused.stderr) == (5, True)
    assert not (tmp_path / "nowhere").exists()
    compiles_here(monkeypatch)
    done = call(*arguments, "-o", tmp_path / "new")
    assert done.exit_code == 0, done.stderr
    new = open_artifact(tmp_path / "new").manifest
    package, graph = new.engines
    assert (package.engine, package.precision) == ("inductor", precision)
    assert package.versions == {"inductor": version("torch"), **NEEDS.versions()}
    assert graph == open_artifact(source).manifest.engines[0]
    recipe = read_recipe(tmp_path / "new" / "recipe.yaml")
    assert [(part.engine, part.targets) for part in recipe.vision.engines] == [
        ("inductor", ("sm90",)),
        ("onnxruntime", ()),
    ]
    kernels = {name for name in new.payload if name.startswith("language/kernels")}
    assert kernels == {"language/kernels-sm90.zip"}
    told = call("inspect", tmp_path / "new").stdout
    assert f"cuda {NEEDS.cuda}, driver {NEEDS.driver}, inductor {version('torch')}" in told


def test_artifact_without_engines(artifact: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(artifact, tmp_path / "none")
    values: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(values | {"engines": []}))
    (folder / IDENTITY).unlink()
    seal(folder, read_manifest(folder))
    result = call("rebuild", folder, "--engine", "tensorrt-rtx", "--target", "sm89")
    assert (result.exit_code, "holds no engine" in result.stderr) == (4, True)


def test_help_names_the_engines_that_rebuild_builds() -> None:
    text = " ".join(call("rebuild", "--help").stdout.split())
    for engine in ENGINE_NAMES:
        assert (engine in text) == (engine in REBUILT), engine
