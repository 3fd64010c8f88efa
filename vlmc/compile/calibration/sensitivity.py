"""Measure each layer's quantization loss, and choose the layers to keep in 16 bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vlmc.compile.calibration.observe import linears_of
from vlmc.compile.onnx.grids import Grid
from vlmc.errors import RecipeError
from vlmc.image.source import Pixels
from vlmc.models.cosine import cosine
from vlmc.models.vision.calibration_ranges import linear_of
from vlmc.models.vision.tower import VisionTower, normalize_tiles, pixel_shuffle
from vlmc.progress.channel import report
from vlmc.progress.events import Progress

_PreHook = Callable[[nn.Module, tuple[Tensor]], tuple[Tensor]]
# Calibration tiles may use this share of the allowed loss, because other tiles lose more.
_SHARE = 2 / 3


@torch.inference_mode()
def layer_losses(
    tower: VisionTower, clips: Mapping[str, float], tiles: Sequence[Pixels], grid: Grid
) -> dict[str, float]:
    """1 - cosine of the worst tile with one linear quantized, for each linear.

    Activations before the linear's block are computed once per tile.

    Args:
        tower: the migrated fp32 tower.
        clips: the clip of each linear.
        tiles: uint8 tiles (448, 448, 3).
        grid: the 8-bit grid.
    """
    losses = dict.fromkeys((name for name, _ in linears_of(tower)), 0.0)
    blocks = len(tower.blocks)
    for index, tile in enumerate(tiles):
        entering = [tower.vision_model.embeddings(_pixels(tower, tile))]
        for block in tower.blocks:
            entering.append(block(entering[-1]))
        expected = _features(tower, entering[-1], blocks)
        for name in losses:
            first = int(name.split(".")[3]) if name.startswith("vision_model.") else blocks
            with quantized(tower, {name: clips[name]}, grid):
                found = _features(tower, entering[first], first)
            losses[name] = max(losses[name], 1 - cosine(found, expected))
        report(Progress("tiles with one linear in 8 bits", index + 1, len(tiles)))
    return losses


def choose_kept(
    tower: VisionTower,
    clips: Mapping[str, float],
    losses: Mapping[str, float],
    tiles: Sequence[Pixels],
    features: Sequence[Tensor],
    grid: Grid,
    min_cosine: float,
) -> tuple[tuple[str, ...], float]:
    """Choose the fewest linears to keep in 16 bits, starting with the largest loss.

    Args:
        tower: the migrated fp32 tower.
        clips: the clip of each linear.
        losses: the result of `layer_losses`.
        tiles: uint8 tiles (448, 448, 3).
        features: features (256, hidden) of each tile from the fp32 tower.
        grid: the 8-bit grid.
        min_cosine: minimum cosine of each tile.

    Returns:
        Names of the linears to keep, and the worst tile's cosine with them kept.

    Raises:
        RecipeError: `min_cosine` is not reached even with all linears in 16 bits.
    """
    target = 1 - _SHARE * (1 - min_cosine)
    order = sorted(losses, key=lambda name: (-losses[name], name))
    found: dict[int, float] = {}

    def worst(kept: int) -> float:
        if kept not in found:
            report(Progress(f"trying {kept} of {len(order)} linears in 16 bits"))
            used = {name: clips[name] for name in order[kept:]}
            found[kept] = worst_cosine(tower, used, tiles, features, grid, at_least=target)
        return found[kept]

    # Exponential search, then bisection, because every evaluation runs all tiles.
    low, high = -1, 0
    while worst(high) < target:
        if high == len(order):
            raise RecipeError(
                f"accuracy.min_feature_cosine is {min_cosine}, but calibration tiles reach only "
                f"{worst(high):.7f} even with every layer in 16 bits. Set a lower value."
            )
        low, high = high, min(len(order), max(1, 2 * high))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if worst(middle) >= target else (middle, high)
    return tuple(sorted(order[:high])), worst(high)


@torch.inference_mode()
def worst_cosine(
    tower: VisionTower,
    clips: Mapping[str, float],
    tiles: Sequence[Pixels],
    features: Sequence[Tensor],
    grid: Grid,
    *,
    at_least: float = -1.0,
) -> float:
    """The worst tile's cosine with the linears of `clips` quantized; stops below `at_least`."""
    worst = 1.0
    with quantized(tower, clips, grid):
        for tile, expected in zip(tiles, features, strict=True):
            worst = min(worst, cosine(tower(_pixels(tower, tile))[0].cpu(), expected))
            if worst < at_least:
                break
    return worst


@contextmanager
def quantized(tower: VisionTower, clips: Mapping[str, float], grid: Grid) -> Iterator[None]:
    """Context manager in which the linears of `clips` use quantized inputs and weights."""
    kept: list[tuple[nn.Linear, Tensor]] = []
    handles = []
    for name, clip in clips.items():
        linear = linear_of(tower, name)
        kept.append((linear, linear.weight.data))
        weight = linear.weight.data
        linear.weight.data = grid.fake(weight, grid.weight_scale(weight, torch.float32))
        scale = grid.activation_scale(clip, torch.float32).to(weight.device)
        handles.append(linear.register_forward_pre_hook(_quantize_input(grid, scale)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for linear, weight in kept:
            linear.weight.data = weight


def _quantize_input(grid: Grid, scale: Tensor) -> _PreHook:
    def quantize(module: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
        return (grid.fake(given[0], scale),)

    return quantize


def _features(tower: VisionTower, states: Tensor, first: int) -> Tensor:
    for block in tower.blocks[first:]:
        states = block(states)
    features: Tensor = tower.mlp1(pixel_shuffle(states[:, 1:], tower.pixel_shuffle_version))
    return features


def _pixels(tower: VisionTower, tile: Pixels) -> Tensor:
    device = next(tower.parameters()).device
    return normalize_tiles(torch.from_numpy(tile)[None].to(device), torch.float32)
