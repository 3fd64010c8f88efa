"""Calibrate a tower: observe activations, choose clips, migrate outliers, rank layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

import torch

from vlmc.artifact.vision_files import GOLDEN_TILES
from vlmc.compile.calibration.clipping import Clip, choose_clip
from vlmc.compile.calibration.fp16_limits import unfit_for_fp16
from vlmc.compile.calibration.golden import golden_tiles
from vlmc.compile.calibration.observe import LinearInputs, Observations, linears_of, observe
from vlmc.compile.calibration.sensitivity import choose_kept, layer_losses
from vlmc.compile.calibration.tiles import CalibrationTiles
from vlmc.compile.onnx.grids import GRIDS, Grid
from vlmc.image.source import Pixels
from vlmc.machine.support import Precision
from vlmc.models.disable_tf32 import disable_tf32
from vlmc.models.vision.calibration_ranges import LinearRange, Ranges, migrate
from vlmc.models.vision.tower import VisionTower

# fp16 calibration only detects overflow, for which a few tiles suffice.
_TILES_FOR_FP16 = 16
CHECKED_TILES = 24
"""Number of calibration tiles on which the cosine is checked, besides the golden tiles."""
RANKED_TILES = 4
"""Number of checked tiles on which each layer is quantized alone, to rank the layers."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Ranges, and figures for the calibration report."""

    ranges: Ranges
    tiles: int  # number of calibration tiles, besides the golden ones
    clips: Mapping[str, Clip]  # empty for fp16
    losses: Mapping[str, float]  # 1 - cosine with this layer alone quantized; empty for fp16
    worst_cosine: float | None  # over the checked tiles; None for fp16
    device: str  # cpu or cuda, whose fp32 results differ in the last bits


@disable_tf32()
def calibrate(
    tower: VisionTower,
    precision: Precision,
    tiles: CalibrationTiles | None,
    *,
    min_cosine: float,
    seed: int,
) -> Calibration:
    """Calibrate an fp32 tower, on its device, for fp16, int8 or fp8.

    The golden tiles are always observed and checked too, because engines must pass the self-test
    on them.

    Args:
        tower: the fp32 tower; int8 and fp8 migrate its channels in place.
        precision: fp16, int8 or fp8.
        tiles: tiles of the calibration images, if any.
        min_cosine: minimum cosine of each checked tile's features to the fp32 tower's.
        seed: seed for the choice of tokens.

    Raises:
        CheckpointError: a layer's input is not finite, or all zero.
        RecipeError: the images have a single colour, or `min_cosine` cannot be reached.
    """
    grid, device = GRIDS.get(precision), next(tower.parameters()).device
    if tiles is not None and grid is not None:
        tiles.check_spread()
    limit = _TILES_FOR_FP16 if grid is None else None
    count = 0 if tiles is None else min(len(tiles), limit or len(tiles))
    # Iterate twice, so that only the checked tiles stay in memory.
    checked = [] if grid is None else list(islice(_tiles(tiles), GOLDEN_TILES + CHECKED_TILES))
    seen = observe(
        tower,
        islice(_tiles(tiles), GOLDEN_TILES + count),
        GOLDEN_TILES + count,
        features=len(checked),
        seed=seed,
    )
    keep_fp32 = unfit_for_fp16(tower, seen)
    if grid is None:
        linears = {name: _range(inputs, None) for name, inputs in seen.linears.items()}
        ranges = Ranges(linears, tuple(seen.residual), (), keep_fp32, {})
        return Calibration(ranges, count, {}, {}, None, device.type)
    return _for_grid(tower, seen, count, keep_fp32, grid, checked, min_cosine)


def _for_grid(
    tower: VisionTower,
    seen: Observations,
    count: int,
    keep_fp32: tuple[str, ...],
    grid: Grid,
    checked: list[Pixels],
    min_cosine: float,
) -> Calibration:
    clips: dict[str, Clip] = {}
    linears: dict[str, LinearRange] = {}
    for name, linear in linears_of(tower):
        inputs = seen.linears[name]
        clips[name] = choose_clip(linear, inputs, grid, migrated=_can_migrate(name))
        linears[name] = _range(inputs, clips[name])
        inputs.rows = torch.empty(0)
    migration = {
        name: tuple(clip.factors.tolist())
        for name, clip in clips.items()
        if clip.factors is not None
    }
    ranges = Ranges(linears, tuple(seen.residual), (), keep_fp32, migration)
    migrate(tower, ranges)
    limits = {name: clip.clip for name, clip in clips.items()}
    ranked = checked[:: max(1, len(checked) // RANKED_TILES)][:RANKED_TILES]
    losses = layer_losses(tower, limits, ranked, grid)
    kept, worst = choose_kept(tower, limits, losses, checked, list(seen.features), grid, min_cosine)
    device = next(tower.parameters()).device.type
    return Calibration(replace(ranges, keep_16bit=kept), count, clips, losses, worst, device)


def _tiles(tiles: CalibrationTiles | None) -> Iterator[Pixels]:
    yield from golden_tiles()
    if tiles is not None:
        yield from tiles


def _can_migrate(name: str) -> bool:
    """Whether migration factors fold into the preceding operation: a norm, or the attention values.

    They cannot be folded through a GELU.
    """
    return name.rpartition(".")[2] in ("qkv", "proj", "fc1") or name == "mlp1.1"


def _range(inputs: LinearInputs, clip: Clip | None) -> LinearRange:
    divide = torch.ones(()) if clip is None or clip.factors is None else clip.factors
    return LinearRange(
        minimum=float((inputs.minimum / divide).min()),
        maximum=float((inputs.maximum / divide).max()),
        clip=None if clip is None else clip.clip,
        output=inputs.output,
    )
