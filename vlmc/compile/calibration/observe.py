"""Run tiles through the tower and collect statistics of activations in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlmc.errors import CheckpointError
from vlmc.image.source import Pixels
from vlmc.image.tiles import TOKENS_PER_TILE
from vlmc.models.vision.calibration_ranges import linear_of
from vlmc.models.vision.tower import VisionBlock, VisionTower, normalize_tiles
from vlmc.progress.channel import report
from vlmc.progress.events import Progress

_Hook = Callable[[nn.Module, tuple[Tensor], Tensor], None]
# Token inputs to keep for each linear, over all tiles, limited by the bytes below.
_ROWS = 1024
_ROWS_BYTES = 1 << 30


@dataclass(slots=True)
class LinearInputs:
    """Statistics of one linear: extremes of each input channel, and the inputs of some tokens."""

    minimum: Tensor  # (inputs,)
    maximum: Tensor  # (inputs,)
    rows: Tensor  # (tokens, inputs) fp32
    output: float = 0.0  # largest magnitude, layer scale included
    seen_rows: int = 0

    @property
    def magnitude(self) -> Tensor:
        """Largest magnitude of each channel, (inputs,)."""
        return torch.maximum(self.minimum.abs(), self.maximum.abs())


@dataclass(frozen=True, slots=True)
class Observations:
    """Statistics over all tiles."""

    linears: dict[str, LinearInputs]
    residual: list[float]  # largest magnitude in each block
    features: Tensor  # of the first tiles, (tiles, 256, hidden) fp32


def observe(
    tower: VisionTower, tiles: Iterable[Pixels], count: int, *, features: int, seed: int
) -> Observations:
    """Run an fp32 tower on tiles, one at a time, and collect statistics.

    All results are allocated before the first tile. Otherwise small allocations between tiles
    fragment the heap, and memory grows with `count`.

    Args:
        tower: the fp32 tower.
        tiles: uint8 tiles (448, 448, 3).
        count: number of tiles.
        features: number of leading tiles whose features are kept.
        seed: seed for the choice of tokens.

    Raises:
        CheckpointError: a layer's input is not finite, or all zero.
    """
    generator = torch.Generator().manual_seed(seed)
    device = next(tower.parameters()).device
    inputs = {name: linear.in_features for name, linear in linears_of(tower)}
    rows = max(1, min(_ROWS, _ROWS_BYTES // (4 * sum(inputs.values()))) // count)
    kept = torch.empty(features, TOKENS_PER_TILE, linear_of(tower, "mlp1.3").out_features)
    linears = {name: _empty_inputs(width, count * rows) for name, width in inputs.items()}
    seen = Observations(linears, [0.0] * len(tower.blocks), kept)
    with torch.inference_mode(), _hooked(tower, seen, rows, generator):
        for index, tile in enumerate(tiles):
            pixels = normalize_tiles(torch.from_numpy(tile)[None].to(device), torch.float32)
            found = tower(pixels)[0]
            if index < features:
                kept[index] = found
            report(Progress("tiles", index + 1, count))
    for name, linear in seen.linears.items():
        if not linear.magnitude.isfinite().all() or not linear.magnitude.any():
            kind = "all zero" if linear.magnitude.isfinite().all() else "not finite"
            raise CheckpointError(
                f"the input of {name} is {kind} on the calibration tiles, so it has no range. "
                "Weights of the layers before it are damaged. Download the checkpoint again."
            )
    return seen


def _empty_inputs(inputs: int, rows: int) -> LinearInputs:
    return LinearInputs(
        minimum=torch.full((inputs,), torch.inf),
        maximum=torch.full((inputs,), -torch.inf),
        rows=torch.empty(rows, inputs),
    )


def linears_of(tower: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """Names and linears of blocks and projector, in execution order."""
    for name, module in tower.named_modules():
        if isinstance(module, nn.Linear):
            yield name, module


@contextmanager
def _hooked(
    tower: VisionTower, seen: Observations, rows: int, generator: torch.Generator
) -> Iterator[None]:
    handles = []
    for name, linear in linears_of(tower):
        scale = scale_after(tower, name)
        watch = _watch_linear(name, seen, rows, generator, scale)
        handles.append(linear.register_forward_hook(watch))
    for index, block in enumerate(tower.blocks):
        watch_stream = _watch_stream(index, seen)
        handles.append(block.norm2.register_forward_hook(watch_stream))
        handles.append(block.register_forward_hook(watch_stream))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def scale_after(tower: VisionTower, name: str) -> Tensor | None:
    """The layer scale (outputs,) applied to a linear's output, or None."""
    above, _, last = name.rpartition(".")
    if last not in ("proj", "fc2"):
        return None
    block = tower.get_submodule(above.rpartition(".")[0])
    if not isinstance(block, VisionBlock):
        raise TypeError(f"{name} is not in a block")
    return block.ls1 if last == "proj" else block.ls2


def _watch_linear(
    name: str, seen: Observations, rows: int, generator: torch.Generator, scale: Tensor | None
) -> _Hook:
    def watch(module: nn.Module, given: tuple[Tensor], output: Tensor) -> None:
        states = given[0].flatten(0, -2)  # (tokens, inputs)
        found = seen.linears[name]
        torch.minimum(found.minimum, states.amin(dim=0).cpu(), out=found.minimum)
        torch.maximum(found.maximum, states.amax(dim=0).cpu(), out=found.maximum)
        scaled = output if scale is None else output * scale
        found.output = max(found.output, float(scaled.abs().max()))
        chosen = torch.randperm(len(states), generator=generator)[:rows].to(states.device)
        start, found.seen_rows = found.seen_rows, found.seen_rows + len(chosen)
        found.rows[start : found.seen_rows] = states[chosen]

    return watch


def _watch_stream(index: int, seen: Observations) -> _Hook:
    def watch(module: nn.Module, given: tuple[Tensor], output: Tensor) -> None:
        # The input of the block's second norm, or the output of the block.
        states = output if isinstance(module, VisionBlock) else given[0]
        seen.residual[index] = max(seen.residual[index], float(states.abs().max()))

    return watch
