"""Choose what 8 bits represent of each linear's input: clip, and factors moved into the weight."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vlmc.compile.calibration.observe import LinearInputs
from vlmc.compile.onnx.grids import Grid

Method = Literal["minmax", "percentile", "mse"]

_PERCENTILE = 0.9999
_MSE_STEPS = 24
_SMALLEST_SHARE = 0.2
# How much of an outlier channel's range moves into the weight: nothing, or as SmoothQuant a half
# or three quarters of it, on the logarithmic scale.
_STRENGTHS = (0.0, 0.5, 0.75)
_LARGEST_POWER = 8


@dataclass(frozen=True, slots=True)
class Clip:
    """How one linear's input is put on the grid."""

    clip: float
    method: Method
    factors: Tensor | None  # (inputs,) powers of two that the input is divided by, on the CPU
    error: float  # of the quantized linear's output, relative RMS on the rows observed


def choose_clip(linear: nn.Linear, inputs: LinearInputs, grid: Grid, *, migrated: bool) -> Clip:
    """The clip and migration whose quantized linear is nearest to the linear on observed rows.

    MinMax, percentile and MSE search are tried for each strength of migration; `migrated` says
    whether factors can be folded into what comes before.
    """
    weight = linear.weight.detach().float()
    rows = inputs.rows[: inputs.seen_rows].to(weight.device)
    magnitude = inputs.magnitude.to(weight.device)
    expected = rows @ weight.T
    size = expected.norm().clamp_min(1e-30)
    best: Clip | None = None
    for strength in _STRENGTHS if migrated else _STRENGTHS[:1]:
        factors = migration_factors(magnitude, weight, strength) if strength else None
        divide = torch.ones_like(magnitude) if factors is None else factors
        moved, scaled = rows / divide, weight * divide
        stored = grid.fake(scaled, grid.weight_scale(scaled, torch.float32))
        largest = float((magnitude / divide).max())
        for method, clip in clips(moved, largest, grid):
            scale = grid.activation_scale(clip, torch.float32)
            error = float((grid.fake(moved, scale) @ stored.T - expected).norm() / size)
            if best is None or error < best.error:
                best = Clip(clip, method, None if factors is None else factors.cpu(), error)
    if best is None:
        raise RuntimeError("no clip was tried")
    return best


def clips(rows: Tensor, largest: float, grid: Grid) -> Iterator[tuple[Method, float]]:
    """A clip by each method, for rows of an input whose largest magnitude is `largest`."""
    yield "minmax", largest
    magnitudes = rows.abs().flatten()
    place = max(1, round(_PERCENTILE * len(magnitudes)))
    percentile = float(magnitudes.kthvalue(place).values)
    if 0 < percentile < largest:
        yield "percentile", percentile
    shares = torch.linspace(1, _SMALLEST_SHARE, _MSE_STEPS).tolist()
    yield (
        "mse",
        largest * min(shares, key=lambda share: _squared_error(rows, share * largest, grid)),
    )


def migration_factors(magnitude: Tensor, weight: Tensor, strength: float) -> Tensor:
    """Powers of two that level an input's channels, as SmoothQuant's |X|^s / |W|^(1-s).

    magnitude (inputs,) of the input's channels, weight (outputs, inputs). A weight's column counts
    relative to its rows, which have scales of their own.
    """
    rows = weight.abs().amax(dim=1, keepdim=True).clamp_min(1e-30)
    columns = (weight.abs() / rows).amax(dim=0)
    used = (magnitude > 0) & (columns > 0)
    powers = torch.zeros_like(magnitude)
    powers[used] = strength * magnitude[used].log2() - (1 - strength) * columns[used].log2()
    powers[used] -= powers[used].median()
    return torch.exp2(powers.round().clamp(-_LARGEST_POWER, _LARGEST_POWER))


def _squared_error(rows: Tensor, clip: float, grid: Grid) -> float:
    # Every fourth row: the search needs no more, and takes most of the time.
    some = rows[::4]
    return float(
        (grid.fake(some, grid.activation_scale(clip, torch.float32)) - some).square().mean()
    )
