"""The fused tower in plain torch, against the tower that it fuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch

from tests.models.vision.fused import (
    TOWERS,
    clips_of,
    reference,
    some_tiles,
    tower_of,
    worst_cosine,
)
from vlmc.models.vision.fuse import fuse
from vlmc.models.vision.tower import VisionTower
from vlmc.models.vision.tower_precision import TowerPrecision, linear_name

Folder = Callable[[str], Path]
FP32 = TowerPrecision(torch.float32)
every_tower = pytest.mark.parametrize("name", TOWERS)


def relative_error(tower: VisionTower, plan: TowerPrecision, count: int = 2) -> float:
    pixels = some_tiles(count)
    expected = reference(tower, pixels)
    with torch.inference_mode():
        found = fuse(tower, plan)(pixels).float()
    return float((found - expected).norm() / expected.norm())


@every_tower
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("in_place", [True, False])
def test_it_computes_what_the_tower_computes(
    name: str, count: int, in_place: bool, miniatures: Folder
) -> None:
    plan = replace(FP32, fp32_residual=not in_place)
    assert plan.in_place == in_place
    assert relative_error(tower_of(miniatures(name)), plan, count) <= 1e-5


@every_tower
@pytest.mark.parametrize("select_layer", [-2, 0, 1])
def test_blocks_that_select_layer_drops(name: str, select_layer: int, miniatures: Folder) -> None:
    tower = tower_of(miniatures(name), select_layer=select_layer)
    assert relative_error(tower, FP32) <= 1e-5


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_pixel_shuffle(version: Literal["v1", "v2"], miniature: Path) -> None:
    assert relative_error(tower_of(miniature, pixel_shuffle=version), FP32) <= 1e-5


@every_tower
def test_biases_of_queries_keys_and_values(name: str, miniatures: Folder) -> None:
    """Large ones, so that none of them can be lost; the keys' matters to a norm alone."""
    tower = tower_of(miniatures(name))
    for block in tower.vision_model.encoder.layers:  # type: ignore[union-attr]
        qkv = block.attn.qkv
        noise = torch.randn(qkv.out_features, generator=torch.Generator().manual_seed(5))
        qkv.bias = torch.nn.Parameter(noise)
    assert relative_error(tower, FP32) <= 1e-5


@every_tower
@pytest.mark.parametrize(
    ("dtype", "least"), [(torch.float16, 0.9999), (torch.bfloat16, 0.999)], ids=str
)
def test_16_bits(name: str, dtype: torch.dtype, least: float, miniatures: Folder) -> None:
    tower, pixels = tower_of(miniatures(name)), some_tiles(3)
    with torch.inference_mode():
        found = fuse(tower, TowerPrecision(dtype))(pixels)
    assert found.dtype == dtype
    assert worst_cosine(found, reference(tower, pixels)) >= least


@every_tower
def test_fp8_linears_and_those_left_in_16_bits(name: str, miniatures: Folder) -> None:
    tower, pixels = tower_of(miniatures(name)), some_tiles(3)
    expected, clips = reference(tower, pixels), clips_of(tower, pixels)
    plan = TowerPrecision(torch.float16, clips)
    fused = fuse(tower, plan)
    eight = {n for n, t in fused.state_dict().items() if t.dtype == torch.float8_e4m3fn}
    assert len(eight) == len(clips)
    with torch.inference_mode():
        all_eight = worst_cosine(fused(pixels), expected)
    assert all_eight >= 0.995
    for kept in ("mlp.fc1", "mlp.fc2", "attn.proj", "attn.qkv"):
        fewer = {n: clip for n, clip in clips.items() if not n.endswith(kept)}
        partly = fuse(tower, replace(plan, clips=fewer))
        with torch.inference_mode():
            assert worst_cosine(partly(pixels), expected) >= 0.995
        left = [n for n, t in partly.state_dict().items() if t.dtype == torch.float8_e4m3fn]
        assert len(left) == len(fewer)


def test_clips_are_what_inputs_saturate_at(miniature: Path) -> None:
    tower, pixels = tower_of(miniature), some_tiles(2)
    expected, clips = reference(tower, pixels), clips_of(tower, pixels)
    narrow = {name: clip / 20 for name, clip in clips.items()}
    with torch.inference_mode():
        wide_cosine = worst_cosine(
            fuse(tower, TowerPrecision(torch.float16, clips))(pixels), expected
        )
        narrow_cosine = worst_cosine(
            fuse(tower, TowerPrecision(torch.float16, narrow))(pixels), expected
        )
    assert narrow_cosine < wide_cosine - 0.01


def test_what_fp16_cannot_hold_is_kept_in_fp32(miniature: Path) -> None:
    """A residual stream and an MLP beyond 65504."""
    tower, pixels = tower_of(miniature), some_tiles(2)
    with torch.no_grad():
        tower.vision_model.encoder.layers[0].mlp.fc2.weight.mul_(1e5)  # type: ignore[index,union-attr]
        tower.vision_model.encoder.layers[0].mlp.fc2.bias.mul_(1e5)  # type: ignore[index,union-attr]
    expected = reference(tower, pixels)
    wide = frozenset({linear_name(0, "mlp.fc2")})
    with torch.inference_mode():
        plain = fuse(tower, TowerPrecision(torch.float16))(pixels)
        kept = fuse(tower, TowerPrecision(torch.float16, fp32=wide, fp32_residual=True))(pixels)
    assert not plain.isfinite().all()
    assert worst_cosine(kept, expected) >= 0.9999


def test_the_same_weights_give_the_same_bits(miniature: Path) -> None:
    plan = TowerPrecision(torch.float16, clips_of(tower_of(miniature), some_tiles(1)))
    first, second = (fuse(tower_of(miniature), plan).state_dict() for _ in range(2))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor.float(), second[name].float()), name


def test_one_graph_serves_any_number_of_tiles(miniature: Path) -> None:
    """As torch.export sees it, which is what is compiled ahead of time."""
    fused = fuse(tower_of(miniature), FP32)
    batch = torch.export.Dim("tiles", min=1, max=64)
    with torch.no_grad():
        program = torch.export.export(
            fused, (some_tiles(3),), dynamic_shapes={"tiles": {0: batch}}
        ).module()
        for count in (1, 2, 5):
            assert torch.equal(program(some_tiles(count)), fused(some_tiles(count)))
