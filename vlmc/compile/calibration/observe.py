"""Run tiles through the tower and keep, in flat memory, what ranges follow from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlmc.errors import CheckpointError
from vlmc.image.decode import Pixels
from vlmc.image.tiles import TOKENS_PER_TILE
from vlmc.models.vision.calibration_ranges import linear_of
from vlmc.models.vision.tower import VisionBlock, VisionTower, normalize_tiles
from vlmc.progress.channel import report
from vlmc.progress.events import Progress

_Hook = Callable[[nn.Module, tuple[Tensor], Tensor], None]
# Tokens of all tiles whose inputs are kept for each linear; fewer where a tower is so wide that
# they would take more than the bytes below.
_ROWS = 1024
_ROWS_BYTES = 1 << 30


@dataclass(slots=True)
class LinearInputs:
    """Of one linear: its inputs' extremes for each channel, and the inputs of some tokens."""

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
    """What all tiles together have shown."""

    linears: dict[str, LinearInputs]
    residual: list[float]  # of each block
    features: Tensor  # of the first tiles, (tiles, 256, hidden) fp32


def observe(
    tower: VisionTower, tiles: Iterable[Pixels], count: int, *, features: int, seed: int
) -> Observations:
    """Observe an fp32 tower on `count` uint8 tiles (448, 448, 3), one after another.

    Keeps the features of the first `features` tiles. Memory does not grow with `count`: what is
    kept has its place before the first tile, since small tensors that outlive a tile would scatter
    over the heap and leave holes too small for the next one's activations.

    Raises:
        CheckpointError: a layer's input is not finite, or all zero.
    """
    generator = torch.Generator().manual_seed(seed)
    device = next(tower.parameters()).device
    inputs = {name: linear.in_features for name, linear in linears_of(tower)}
    rows = max(1, min(_ROWS, _ROWS_BYTES // (4 * sum(inputs.values()))) // count)
    kept = torch.empty(features, TOKENS_PER_TILE, linear_of(tower, "mlp1.3").out_features)
    linears = {name: _nothing_seen(width, count * rows) for name, width in inputs.items()}
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
                f"the input of {name} is {kind} on the calibration tiles, so it has no range. The "
                "checkpoint's weights before it are damaged; `vlmc run` would answer nonsense too."
            )
    return seen


def _nothing_seen(inputs: int, rows: int) -> LinearInputs:
    return LinearInputs(
        minimum=torch.full((inputs,), torch.inf),
        maximum=torch.full((inputs,), -torch.inf),
        rows=torch.empty(rows, inputs),
    )


def linears_of(tower: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """Every linear of blocks and projector, with its name, in the order of work."""
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
    """The layer scale that multiplies a linear's output, (outputs,), if one does."""
    above, _, last = name.rpartition(".")
    if last not in ("proj", "fc2"):
        return None
    block = tower.get_submodule(above.rpartition(".")[0])
    if not isinstance(block, VisionBlock):
        raise TypeError(f"{name} is in no block")
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
        # Into the block's second norm, or out of the block.
        states = output if isinstance(module, VisionBlock) else given[0]
        seen.residual[index] = max(seen.residual[index], float(states.abs().max()))

    return watch
