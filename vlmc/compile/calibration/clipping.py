"""Choose the clip of each linear's input, and the factors migrated into its weight."""

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
# Migration strengths, as in SmoothQuant: the share of an outlier channel's range, on a logarithmic
# scale, that moves into the weight.
_STRENGTHS = (0.0, 0.5, 0.75)
_LARGEST_POWER = 8


@dataclass(frozen=True, slots=True)
class Clip:
    """The quantization of one linear's input."""

    clip: float
    method: Method
    factors: Tensor | None  # (inputs,) powers of two to divide the input by, on the CPU
    error: float  # relative RMS error of the quantized linear's output on observed rows


def choose_clip(linear: nn.Linear, inputs: LinearInputs, grid: Grid, *, migrated: bool) -> Clip:
    """The clip and migration with the smallest output error on observed rows.

    Tries min-max, percentile and MSE search with each migration strength.

    Args:
        linear: the unquantized linear.
        inputs: observed inputs of the linear.
        grid: the 8-bit grid.
        migrated: whether the factors can be folded into the preceding operation.
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
    """A clip by each method, for input rows with the largest magnitude `largest`."""
    yield "minmax", largest
    magnitudes = rows.abs().flatten()
    rank = max(1, round(_PERCENTILE * len(magnitudes)))
    percentile = float(magnitudes.kthvalue(rank).values)
    if 0 < percentile < largest:
        yield "percentile", percentile
    shares = torch.linspace(1, _SMALLEST_SHARE, _MSE_STEPS).tolist()
    yield (
        "mse",
        largest * min(shares, key=lambda share: _squared_error(rows, share * largest, grid)),
    )


def migration_factors(magnitude: Tensor, weight: Tensor, strength: float) -> Tensor:
    """Powers of two that equalize input channels, as SmoothQuant's |X|^s / |W|^(1-s).

    Weight columns are compared after dividing each row by its maximum, because rows have their own
    scales.

    Args:
        magnitude: (inputs,), the largest magnitude of each input channel.
        weight: (outputs, inputs).
        strength: s, from 0 to 1.
    """
    rows = weight.abs().amax(dim=1, keepdim=True).clamp_min(1e-30)
    columns = (weight.abs() / rows).amax(dim=0)
    used = (magnitude > 0) & (columns > 0)
    powers = torch.zeros_like(magnitude)
    powers[used] = strength * magnitude[used].log2() - (1 - strength) * columns[used].log2()
    powers[used] -= powers[used].median()
    return torch.exp2(powers.round().clamp(-_LARGEST_POWER, _LARGEST_POWER))


def _squared_error(rows: Tensor, clip: float, grid: Grid) -> float:
    # Every fourth row is enough for this search, which dominates the running time.
    sample = rows[::4]
    scale = grid.activation_scale(clip, torch.float32)
    return float((grid.fake(sample, scale) - sample).square().mean())
