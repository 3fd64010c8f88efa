"""Typed and quantized graphs against the fp32 tower, and the ranges that they are made by."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from tests.artifacts import QUICK, write_recipe
from tests.compile.calibration.tiles import calibration_tiles
from vlmc.artifact.manifest import read_manifest
from vlmc.builder.build import build
from vlmc.checkpoint.source import open_checkpoint
from vlmc.compile.calibration.fp16_limits import LARGEST
from vlmc.compile.calibration.golden import golden_tiles
from vlmc.compile.calibration.ranges import calibrate
from vlmc.compile.calibration.sensitivity import worst_cosine
from vlmc.compile.calibration.tiles import CalibrationTiles
from vlmc.compile.onnx.grids import GRIDS
from vlmc.compile.onnx.typed_tower import TypedTower
from vlmc.compile.vision import fp32_tower, write_graph
from vlmc.errors import RecipeError
from vlmc.image.tiles import TileRule
from vlmc.machine.support import MIN_FEATURE_COSINE, Precision
from vlmc.models.cosine import cosine
from vlmc.models.vision.calibration_ranges import Ranges, migrate, read_ranges
from vlmc.models.vision.tower import VisionTower, normalize_tiles
from vlmc.recipe.read import read_recipe
from vlmc.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine

TILES = torch.from_numpy(golden_tiles()[2:4])


def tower_of(checkpoint: Path) -> VisionTower:
    with open_checkpoint(checkpoint) as opened:
        return fp32_tower(opened)


@torch.inference_mode()
def features_of(tower: VisionTower, tiles: torch.Tensor = TILES) -> torch.Tensor:
    return tower(normalize_tiles(tiles, torch.float32))


@pytest.mark.parametrize(("name", "shuffle"), [*((name, "v2") for name in QUICK), (QUICK[0], "v1")])
@torch.inference_mode()
def test_folding_leaves_the_tower_as_it_is(
    name: str, shuffle: Literal["v1", "v2"], miniatures: Callable[[str], Path]
) -> None:
    tower = tower_of(miniatures(name))
    tower.pixel_shuffle_version = shuffle
    expected = features_of(tower).double()
    found = TypedTower(tower, torch.float32)(TILES).double()
    assert float((found - expected).norm() / expected.norm()) <= 1e-6


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@torch.inference_mode()
def test_sixteen_bits_stay_near(name: str, dtype: str, miniatures: Callable[[str], Path]) -> None:
    tower = tower_of(miniatures(name))
    typed = TypedTower(tower, getattr(torch, dtype))(TILES)
    assert typed.dtype == getattr(torch, dtype)
    least = MIN_FEATURE_COSINE["fp16" if dtype == "float16" else "bf16"]
    for one, other in zip(typed, features_of(tower), strict=True):
        assert cosine(one, other) >= least


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp16", "float16"), ("int8", "float32"), ("fp8", "float16")]
)
def test_graphs_answer_as_the_tower(
    precision: Precision, dtype: str, miniature: Path, images: Path, tmp_path: Path
) -> None:
    tower = tower_of(miniature)
    expected = features_of(tower)
    least = MIN_FEATURE_COSINE[precision]
    measured = calibrate(tower, precision, calibration_tiles(images), min_cosine=least, seed=0)
    path = tmp_path / "model.onnx"
    write_graph(tower_of(miniature), path, precision, dtype, measured.ranges)  # type: ignore[arg-type]
    onnx.checker.check_model(onnx.load(path), full_check=True)
    found = OnnxRuntimeEngine(path, precision).infer(TILES)
    assert found.dtype == (torch.float32 if dtype == "float32" else torch.float16)
    for one, other in zip(found, expected, strict=True):
        assert cosine(one, other) >= least
    stored = {entry.name: entry.data_type for entry in onnx.load(path).graph.initializer}
    eight = {"int8": onnx.TensorProto.INT8, "fp8": onnx.TensorProto.FLOAT8E4M3FN}.get(precision)
    on_grid = {name for name, kind in stored.items() if kind == eight and name.endswith(".weight")}
    kept = measured.ranges.keep_16bit
    wanted = {f"{name}.weight" for name in measured.ranges.linears if name not in kept}
    assert on_grid == (wanted if eight else set())


def test_bf16_graph_is_whole(miniature: Path, tmp_path: Path) -> None:
    """No runtime of a CPU has kernels for it."""
    path = tmp_path / "model.onnx"
    write_graph(tower_of(miniature), path, "bf16", "bfloat16", None)
    graph = onnx.load(path)
    onnx.checker.check_model(graph, full_check=True)
    assert graph.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.BFLOAT16


@pytest.mark.parametrize("name", QUICK)
def test_migration_changes_no_bit(name: str, miniatures: Callable[[str], Path]) -> None:
    tower = tower_of(miniatures(name))
    before = features_of(tower)
    factors = {}
    for block in ("0",):
        above = f"vision_model.encoder.layers.{block}"
        for last in ("attn.qkv", "attn.proj", "mlp.fc1"):
            width = tower.get_submodule(f"{above}.{last}").in_features
            factors[f"{above}.{last}"] = tuple(2.0 ** ((i % 7) - 3) for i in range(width))
    migrate(tower, Ranges({}, (), (), (), factors))
    after = features_of(tower)
    # Sums of the same numbers times powers of two, but for the 6B tower's norms of queries.
    assert torch.equal(before, after) or float((before - after).abs().max()) < 1e-5


def test_an_outlier_that_fp16_cannot_hold_is_kept_in_fp32(miniature: Path, tmp_path: Path) -> None:
    def sharpened() -> VisionTower:
        tower = tower_of(miniature)
        block = tower.blocks[0]
        with torch.no_grad():
            # One channel of the stream far above the others, which the next norm levels.
            block.mlp.fc2.bias[0] = 8e4 / float(block.ls2[0].abs().clamp_min(1e-3))
        return tower

    tower = sharpened()
    expected = features_of(tower)
    ranges = calibrate(tower, "fp16", None, min_cosine=0.9999, seed=0).ranges
    assert max(ranges.residual) > LARGEST
    assert "vision_model.encoder.layers.0" in ranges.keep_fp32
    path = tmp_path / "model.onnx"
    write_graph(sharpened(), path, "fp16", "float16", ranges)
    found = OnnxRuntimeEngine(path, "fp16").infer(TILES)
    assert bool(torch.isfinite(found).all())
    assert min(cosine(one, other) for one, other in zip(found, expected, strict=True)) >= 0.999
    naive = TypedTower(sharpened(), torch.float16)(TILES)
    assert not bool(torch.isfinite(naive).all()), "without it fp16 overflows"


def test_layers_stay_in_sixteen_bits_until_the_cosine_holds(miniature: Path, images: Path) -> None:
    tiles = calibration_tiles(images)
    coarse = calibrate(tower_of(miniature), "int8", tiles, min_cosine=0.9, seed=0)
    fine = calibrate(tower_of(miniature), "int8", tiles, min_cosine=0.99999, seed=0)
    assert len(fine.ranges.keep_16bit) > len(coarse.ranges.keep_16bit)
    assert fine.worst_cosine is not None and coarse.worst_cosine is not None
    assert fine.worst_cosine > coarse.worst_cosine
    worst = max(fine.losses, key=lambda name: fine.losses[name])
    assert worst in fine.ranges.keep_16bit


def test_quantizing_less_loses_less(miniature: Path, images: Path) -> None:
    tower = tower_of(miniature)
    measured = calibrate(tower, "int8", calibration_tiles(images), min_cosine=0.9, seed=0)
    clips = {name: part.clip for name, part in measured.ranges.linears.items() if part.clip}
    tiles = list(TILES.numpy())
    expected = list(features_of(tower))
    all_of_them = worst_cosine(tower, clips, tiles, expected, GRIDS["int8"])
    none = worst_cosine(tower, {}, tiles, expected, GRIDS["int8"])
    assert all_of_them < none
    assert none > 1 - 1e-9


def test_black_images_are_refused(tmp_path: Path) -> None:
    paths = []
    for index in range(2):
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(paths[-1])
    tiles = CalibrationTiles(paths, TileRule("single"), resampler="opencv", exif="ignore", seed=0)
    with pytest.raises(RecipeError, match=r"have only values between 0 and 0.*patch_embedding"):
        tiles.check_spread()


def test_a_build_calibrates_and_reports(miniature: Path, images: Path, tmp_path: Path) -> None:
    lines = [
        json.dumps({"image": str(path), "prompt": "What?"})
        for path in sorted(images.glob("*.jpg"))[:3]
    ]
    dataset = tmp_path / "calibration.jsonl"
    dataset.write_text("\n".join(lines))
    recipe = write_recipe(tmp_path / "recipe.yaml", miniature)
    overrides = ["vision.precision=int8", f"calibration.dataset={dataset}"]
    folder = build(
        read_recipe(recipe, [*overrides, "calibration.samples=3"]),
        tmp_path / "artifact",
    )
    manifest = read_manifest(folder)
    assert set(manifest.calibration) == {"vision"}
    assert manifest.engines[0].precision == "int8"
    ranges = read_ranges(folder / "vision" / "ranges.json")
    report = json.loads((folder / "reports" / "vision-ranges.json").read_text())
    assert report["samples"] == 3
    assert report["samples_sha256"] == manifest.calibration["vision"]
    assert {layer["name"] for layer in report["layers"]} == set(ranges.linears)
    assert report["keep_16bit"] == list(ranges.keep_16bit)
    picture = (folder / "reports" / "vision-layers.svg").read_text()
    assert picture.count("<rect") > len(report["layers"])
    assert str(tmp_path) not in (folder / "vision" / "ranges.json").read_text()
