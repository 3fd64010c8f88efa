"""From ranges to a plan, and the tower that packages are compiled from and loaded with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

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
from vlmc.artifact.vision_files import RANGES, TOWER
from vlmc.checkpoint.source import open_checkpoint
from vlmc.compile.vision import write_weights
from vlmc.errors import IntegrityError
from vlmc.models.vision.calibration_ranges import (
    LinearRange,
    Ranges,
    linear_of,
    migrate,
    write_ranges,
)
from vlmc.models.vision.fuse import fuse
from vlmc.models.vision.tower_file import read_tower_and_precision
from vlmc.models.vision.tower_precision import TowerPrecision, linear_name, tower_precision_of

CPU = torch.device("cpu")
QKV, PROJ, FC1 = (linear_name(0, name) for name in ("attn.qkv", "attn.proj", "mlp.fc1"))
BLOCK = "vision_model.encoder.layers.1"


def ranges_of(folder: Path, pixels: torch.Tensor) -> Ranges:
    """As calibration gives them: channels of two linears migrated, one linear kept."""
    tower = tower_of(folder)
    factors = {
        name: tuple(2.0 ** (index % 3) for index in range(linear_of(tower, name).in_features))
        for name in (QKV, PROJ)
    }
    empty = Ranges({}, (), (), (), factors)
    migrate(tower, empty)
    clips = clips_of(tower, pixels)
    linears = {name: LinearRange(-clip, clip, clip, 1.0) for name, clip in clips.items()}
    return Ranges(linears, (1.0, 1.0), (FC1,), (), factors)


@pytest.fixture
def stored(miniature: Path, tmp_path: Path) -> Path:
    """A folder with the miniature's `tower.safetensors`."""
    with open_checkpoint(miniature) as checkpoint:
        write_weights(checkpoint, tmp_path)
    return tmp_path


def test_plan_of_each_precision() -> None:
    linears = {name: LinearRange(-2.0, 2.0, 1.5, 3.0) for name in (QKV, PROJ, FC1)}
    unclipped = {name: replace(linear, clip=None) for name, linear in linears.items()}
    measured = Ranges(linears, (1.0, 9e4), (PROJ,), (FC1, BLOCK), {})
    for_fp16 = replace(measured, linears=unclipped, keep_16bit=())
    assert tower_precision_of("fp32", None) == TowerPrecision(torch.float32)
    assert tower_precision_of("bf16", None) == TowerPrecision(torch.bfloat16)
    wide = frozenset({FC1})
    assert tower_precision_of("fp16", for_fp16) == TowerPrecision(
        torch.float16, {}, wide, fp32_residual=True
    )
    eight = tower_precision_of("fp8", replace(measured, keep_fp32=(FC1,)))
    assert eight == TowerPrecision(torch.float16, {QKV: 1.5, FC1: 1.5}, wide)
    assert [eight.mode(name) for name in (QKV, PROJ, FC1)] == ["fp8", "16bit", "fp32"]


@pytest.mark.parametrize("precision", ["fp16", "fp8", "int8", "fp4"])
def test_precision_without_what_it_takes_is_refused(precision: str) -> None:
    with pytest.raises(IntegrityError, match=f"no tower for inductor in {precision} without"):
        tower_precision_of(precision, None)


@pytest.mark.parametrize(("precision", "least"), [("fp16", 0.9999), ("fp8", 0.99)])
def test_stored_tower_by_its_ranges(
    precision: str, least: float, stored: Path, miniature: Path
) -> None:
    pixels = some_tiles(2)
    write_ranges(ranges_of(miniature, pixels), stored / RANGES)
    tower, plan = read_tower_and_precision(stored / TOWER, stored / RANGES, precision, CPU)
    assert not torch.equal(linear_of(tower, QKV).weight, linear_of(tower_of(miniature), QKV).weight)
    fused = fuse(tower, plan)
    kept, eight = fused.blocks[0].fc1.linear.weight, fused.blocks[0].qkv.weight  # type: ignore
    assert kept.dtype == torch.float16
    assert (eight.dtype == torch.float8_e4m3fn) == (precision == "fp8")
    with torch.inference_mode():
        found = fused(pixels)
    assert worst_cosine(found, reference(tower_of(miniature), pixels)) >= least


def test_ranges_of_another_tower_are_refused(
    stored: Path, miniatures: Callable[[str], Path]
) -> None:
    other = ranges_of(miniatures(TOWERS[1]), some_tiles(1))
    for migration in ({"nothing": (2.0,)}, {QKV: (*other.migration[QKV], 1.0)}):
        write_ranges(replace(other, migration=migration), stored / RANGES)
        with pytest.raises(IntegrityError, match="belongs to another tower"):
            read_tower_and_precision(stored / TOWER, stored / RANGES, "fp8", CPU)
