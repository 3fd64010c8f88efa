"""TensorRT-RTX engines, built for real with no GPU; full TensorRT as far as it is refused here."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import pytest

from vlmc.artifact.manifest import Profile
from vlmc.checkpoint.source import open_checkpoint
from vlmc.compile.calibration.ranges import calibrate
from vlmc.compile.engines.layer_precisions import LAYER_LIST, engine_products
from vlmc.compile.engines.tensorrt import LARGEST_CARD_GIB, build_engine, check_memory
from vlmc.compile.vision import fp32_tower, write_graph
from vlmc.errors import BuildError, HardwareError, UsageError
from vlmc.machine.gpu import gpus
from vlmc.machine.support import TARGETS, Precision

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX has wheels for Linux on x86-64 alone")

# One process makes the graphs that these tests share.
pytestmark = pytest.mark.xdist_group("compile.tensorrt")
PROFILES = (Profile(1, 1, 1), Profile(2, 4, 13))


def built(
    graph: Path, folder: Path, target: str, profiles: tuple[Profile, ...] = PROFILES
) -> dict[str, Any]:
    """Build a plan, and return its report."""
    folder.mkdir()
    build_engine(graph, folder, engine="tensorrt-rtx", target=target, profiles=profiles)
    report = folder / "report" / f"vision-tensorrt-rtx-{target}.json"
    values: dict[str, Any] = json.loads(report.read_text())
    assert (folder / f"tensorrt-rtx-{target}.engine").stat().st_size > values["weights_bytes"]
    return values


@pytest.mark.parametrize("name", ["internlm2-300m", "llama-yi-6b"])
def test_towers_of_both_kinds_build(
    name: str, artifacts: Callable[[str], Path], tmp_path: Path
) -> None:
    graph = artifacts(name) / "vision" / "model.onnx"
    report = built(graph, tmp_path / "plan", "sm89")
    first, second = report["profiles"]
    assert (first["min"], first["opt"], first["max"]) == (1, 1, 1)
    assert 0 < first["device_memory_bytes"] < second["device_memory_bytes"]
    assert report["device_memory_bytes"] == second["device_memory_bytes"]
    assert set(report["layers"]["matrix_multiply"]) == {"fp32"}
    assert report["layers"]["convolution"] == {"fp32": 1}
    assert set(report["products"]) == {"fp32"}


@pytest.fixture(scope="module")
def quantized(
    miniatures: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, Precision], tuple[Path, int]]:
    """`quantized(name, precision)` is that miniature's graph, fp16 around the 8-bit grid, and how
    many linears are on it."""

    @cache
    def graph(name: str, precision: Precision) -> tuple[Path, int]:
        path = tmp_path_factory.mktemp("quantized") / "model.onnx"
        with open_checkpoint(miniatures(name)) as checkpoint:
            tower = fp32_tower(checkpoint)
            ranges = calibrate(tower, precision, None, min_cosine=0.99, seed=0).ranges
            write_graph(fp32_tower(checkpoint), path, precision, "float16", ranges)
        return path, len(ranges.linears) - len(ranges.keep_16bit)

    return graph


@pytest.mark.parametrize(
    ("name", "precision", "target"),
    [
        pytest.param("internlm2-300m", "int8", "sm86", marks=pytest.mark.slow),
        ("internlm2-300m", "int8", "sm89"),
        pytest.param("internlm2-300m", "int8", "sm120", marks=pytest.mark.slow),
        pytest.param("internlm2-300m", "fp8", "sm89", marks=pytest.mark.slow),
        ("internlm2-300m", "fp8", "sm120"),
        pytest.param("llama-yi-6b", "int8", "sm89", marks=pytest.mark.slow),
    ],
)
def test_linears_are_in_8_bits_in_the_plan(
    name: str,
    precision: Precision,
    target: str,
    quantized: Callable[[str, Precision], tuple[Path, int]],
    tmp_path: Path,
) -> None:
    """Not in the graph alone: what lies between its nodes decides what becomes of them."""
    graph, on_grid = quantized(name, precision)
    report = built(graph, tmp_path / "plan", target)
    assert on_grid >= 8
    assert report["layers"]["matrix_multiply"][precision] == on_grid
    assert report["products"][precision] == len(PROFILES) * on_grid
    # The patch embedding, and attention in each of the two blocks.
    assert report["products"]["fp16"] >= len(PROFILES) * 3


@pytest.mark.parametrize("target", ["sm75", "sm80", "sm86"])
def test_no_plan_of_fp8_for_cards_without(
    target: str, quantized: Callable[[str, Precision], tuple[Path, int]], tmp_path: Path
) -> None:
    """Which the recipe's check says earlier, and `vlmc rebuild`."""
    graph, _ = quantized("internlm2-300m", "fp8")
    with pytest.raises(BuildError, match=rf"cannot build .* for {target}: .*fp8_e4m3"):
        built(graph, tmp_path / "plan", target)


def test_products_are_counted_by_their_weights() -> None:
    def layer(name: str, kind: str, given: str, constants: str) -> str:
        def tensors(text: str) -> str:
            parts = (part.split() for part in text.split(";") if part)
            return ", ".join(
                f"{{ Name: t, Dimensions: [{sizes}], Datatype: {dtype} }}" for sizes, dtype in parts
            )

        inputs = f"Inputs: [ {tensors(given)}], Constants: [ {tensors(constants)}]"
        return f"Name: {name}, LayerType: {kind}, {inputs}, Outputs: [ {{ Name: o }}]\n"

    quantized = layer("a", "gemm", "-1,32 Int8", "32,96 Int8;1 Float")
    undone = layer("b", "runtime_fusion", "1,1025,32 Int8;1,32,96 Half", "")
    biased = layer("c", "runtime_fusion", "1,1025,32 FP8;1,1025,96 Half", "1,1,96 Half;1,32,96 FP8")
    attention = layer("_gemm_mha_v2_0", "kgen", "2,1025,16 Half", "")
    other = layer("__myl_Add", "kgen", "1,1025,32 Half", "1,1,32 Float")
    message = f"Layers:\n{quantized}{undone}{biased}{attention}{other}"
    assert message.startswith(LAYER_LIST)
    assert engine_products(message) == {"fp16": 2, "fp8": 1, "int8": 1}
    assert engine_products(message + layer("d", "gemm", "1,2,3 FP4", "1,3,4 FP4")) is None
    assert engine_products("Layers:\n") is None


@pytest.mark.parametrize("target", ["sm80", "sm86", "sm120", "sm121"])
def test_every_target_builds(target: str, artifact: Path, tmp_path: Path) -> None:
    graph = artifact / "vision" / "model.onnx"
    assert built(graph, tmp_path / "plan", target, PROFILES[:1])["target"] == target


def test_target_that_the_package_lacks(artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"vision\.engines: .* no target sm90; it has sm75, sm80"):
        built(artifact / "vision" / "model.onnx", tmp_path / "plan", "sm90")


def test_refused_layer_is_named(artifact: Path, tmp_path: Path) -> None:
    """Of fp32 products on Turing TensorRT-RTX has none, which the recipe's check says earlier."""
    with pytest.raises(BuildError, match=r"cannot build model\.onnx for sm75: .*'node_.*FP32 GEMM"):
        built(artifact / "vision" / "model.onnx", tmp_path / "plan", "sm75")


def test_refused_node_is_named(artifact: Path, tmp_path: Path) -> None:
    model = onnx.load(artifact / "vision" / "model.onnx")
    node = next(node for node in model.graph.node if node.op_type == "Gelu")
    node.op_type, node.name = "Unknown", "gelu_of_my_own"
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(
        BuildError, match=r"cannot read model\.onnx: node gelu_of_my_own \(Unknown\): "
    ):
        built(tmp_path / "model.onnx", tmp_path / "plan", "sm89")


@pytest.mark.parametrize("size", [0, 1000])
def test_truncated_graph(size: int, artifact: Path, tmp_path: Path) -> None:
    data = (artifact / "vision" / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(data[:size])
    with pytest.raises(BuildError, match=r"cannot (read|build) model\.onnx"):
        built(tmp_path / "model.onnx", tmp_path / "plan", "sm89")


def test_profile_that_no_card_has_memory_for() -> None:
    assert set(LARGEST_CARD_GIB) == set(TARGETS)
    profiles = [
        {"min": 1, "opt": 1, "max": 1, "device_memory_bytes": 1 << 30},
        {"min": 1, "opt": 9, "max": 99, "device_memory_bytes": 40 << 30},
    ]
    known = {"profiles": profiles, "weights_bytes": 7 << 30}
    check_memory(known, "sm89")
    known["weights_bytes"] = 9 << 30
    with pytest.raises(BuildError, match=r"vision\.profiles\[1\] with max 99 needs 52,613,349,376"):
        check_memory(known, "sm89")
    check_memory(known, "sm90")


def test_full_tensorrt_asks_for_the_gpu_that_it_builds_for(artifact: Path, tmp_path: Path) -> None:
    other = next(target for target in TARGETS if target not in {gpu.target for gpu in gpus()})
    with pytest.raises(HardwareError, match=f"vision.tensorrt-{other} must run on a machine"):
        build_engine(
            artifact / "vision" / "model.onnx",
            tmp_path,
            engine="tensorrt",
            target=other,
            profiles=PROFILES,
        )


def test_missing_package_is_told(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(UsageError, match=r"needs the package tensorrt_rtx.*\[tensorrt-rtx\]'"):
        built(artifact / "vision" / "model.onnx", tmp_path / "plan", "sm89")


def test_graph_with_weights_beside_it(artifact: Path, tmp_path: Path) -> None:
    model = onnx.load(artifact / "vision" / "model.onnx")
    onnx.save(
        model,
        tmp_path / "model.onnx",
        save_as_external_data=True,
        location="model.onnx.data",
        size_threshold=256,
    )
    usual = built(artifact / "vision" / "model.onnx", tmp_path / "usual", "sm89", PROFILES[:1])
    apart = built(tmp_path / "model.onnx", tmp_path / "apart", "sm89", PROFILES[:1])
    assert (tmp_path / "model.onnx.data").stat().st_size > 300_000
    assert apart["layers"] == usual["layers"]


@pytest.mark.slow
def test_300m_tower_in_fp16_with_four_profiles(tmp_path: Path) -> None:
    """Its time is told by benchmarks/tensorrt_build.py; its memory is that of any machine."""
    from benchmarks import tensorrt_build

    tensorrt_build.export_graph(tmp_path / "fp16.onnx", "fp16")
    plans = {}
    for target in ("sm75", "sm89"):
        taken = tensorrt_build.measure(tmp_path / "fp16.onnx", target)
        assert taken["peak_bytes"] < tensorrt_build.MAX_BYTES
        assert taken["plan_bytes"] < 1.1 * taken["graph_bytes"]
        plans[target] = taken["plan_bytes"]
    tensorrt_build.export_graph(tmp_path / "int8.onnx", "int8")
    taken = tensorrt_build.measure(tmp_path / "int8.onnx", "sm89")
    assert taken["plan_bytes"] <= tensorrt_build.INT8_SHARE * plans["sm89"]
    # Four linears in each of 24 blocks and two of the projector, in each profile.
    assert taken["products"]["int8"] == len(tensorrt_build.PROFILES) * 98
