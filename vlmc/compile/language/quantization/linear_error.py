"""Measure the quantization error of each linear of a layer on held-out samples."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

# An outlier's largest value, as a multiple of the median channel's.
OUTLIER_RATIO = 100.0


@dataclass(frozen=True, slots=True)
class LinearReport:
    """Errors of one linear, as RMS relative to the unquantized linear."""

    name: str
    inputs: int
    outputs: int
    bits: int
    output_error: float | None  # on held-out samples; None without samples
    weight_error: float | None
    scale_min: float | None
    scale_max: float | None
    dead_inputs: int | None  # input channels that are zero in all samples; None without samples
    outlier_inputs: int | None  # input channels above OUTLIER_RATIO; None without samples

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


class LinearMeter:
    """Accumulates the error of one linear; `rounded` is None if it keeps 16 bits."""

    def __init__(self, reference: Tensor, rounded: Tensor | None) -> None:
        self._reference, self._rounded = reference, rounded
        self._error = self._total = 0.0
        self._seen = False
        self._largest = torch.zeros(reference.shape[1], device=reference.device)

    def watch(self, inputs: Tensor, *, measured: bool) -> None:
        """Add inputs (1, tokens, inputs); `measured` is True for held-out samples."""
        rows, self._seen = inputs.flatten(0, -2), True
        self._largest = torch.maximum(self._largest, rows.abs().amax(dim=0).float())
        if measured and self._rounded is not None:
            # fp64, because squares may overflow fp32.
            expected = rows @ self._reference.T
            error = rows @ (self._reference - self._rounded).T
            self._error += error.double().square().sum().item()
            self._total += expected.double().square().sum().item()

    def report(self, name: str, scale: Tensor | None, bits: int) -> LinearReport:
        """The accumulated report."""
        outputs, inputs = self._reference.shape
        # Median over used inputs, because it is zero if most inputs are dead.
        used = self._largest[self._largest > 0]
        limit = OUTLIER_RATIO * used.median() if len(used) else math.inf
        lost = None if self._rounded is None else self._reference - self._rounded
        return LinearReport(
            name=name,
            inputs=inputs,
            outputs=outputs,
            bits=16 if self._rounded is None else bits,
            output_error=(self._error / self._total) ** 0.5 if self._total > 0 else None,
            weight_error=(
                None
                if lost is None
                else float(lost.float().norm() / self._reference.float().norm())
            ),
            scale_min=None if scale is None else float(scale.min()),
            scale_max=None if scale is None else float(scale.max()),
            dead_inputs=int((self._largest == 0).sum()) if self._seen else None,
            outlier_inputs=int((self._largest > limit).sum()) if self._seen else None,
        )
