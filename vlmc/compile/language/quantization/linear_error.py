"""What quantization did to each linear of a layer, measured on samples held out."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

# An input whose largest value is so many times the median input's.
OUTLIER_RATIO = 100.0


@dataclass(frozen=True, slots=True)
class LinearReport:
    """One linear. Errors are root mean squares relative to the unquantized linear's: of outputs
    on held-out samples (None where there are none), and of the weights themselves."""

    name: str
    inputs: int
    outputs: int
    bits: int
    output_error: float | None
    weight_error: float | None
    scale_min: float | None
    scale_max: float | None
    dead_inputs: int | None  # that no sample uses; None without samples
    outlier_inputs: int | None  # whose largest value is over 100 times the median input's

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


class LinearMeter:
    """Sums of one linear over samples; `rounded` None where it keeps 16 bits."""

    def __init__(self, reference: Tensor, rounded: Tensor | None) -> None:
        self._reference, self._rounded = reference, rounded
        self._error = self._total = 0.0
        self._seen = False
        self._largest = torch.zeros(reference.shape[1], device=reference.device)

    def watch(self, inputs: Tensor, *, measured: bool) -> None:
        """Take inputs of (1, tokens, inputs) in; `measured` where they are held out."""
        rows, self._seen = inputs.flatten(0, -2), True
        self._largest = torch.maximum(self._largest, rows.abs().amax(dim=0).float())
        if measured and self._rounded is not None:
            # Squares of what fp32 holds may be beyond it.
            wanted = rows @ self._reference.T
            lost = rows @ (self._reference - self._rounded).T
            self._error += lost.double().square().sum().item()
            self._total += wanted.double().square().sum().item()

    def report(self, name: str, scale: Tensor | None, bits: int) -> LinearReport:
        """What was seen."""
        outputs, inputs = self._reference.shape
        # Of the inputs in use: where most are dead the median is zero, and tells of no outlier.
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
