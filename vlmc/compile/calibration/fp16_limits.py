"""What of a tower fp16 cannot hold, and is kept in fp32."""

from __future__ import annotations

import torch
from torch import Tensor

from vlmc.compile.calibration.observe import Observations, scale_after
from vlmc.compile.onnx.typed_tower import fold_scale
from vlmc.models.vision.calibration_ranges import linear_of
from vlmc.models.vision.tower import VisionTower

LARGEST = 65504 / 4
"""Magnitude from which fp16, which ends at 65504, is not trusted on tiles that were not seen."""
# Twice what rounding to fp16's 11 bits costs; more is lost where values are below its normal ones.
_CAST_ERROR = 2.0**-11


def unfit_for_fp16(tower: VisionTower, seen: Observations) -> tuple[str, ...]:
    """Names of linears whose inputs, outputs or folded weights fp16 does not hold, and of the
    blocks from the first whose residual stream it does not hold.

    An outlier stays in the stream once it is there, so all blocks behind the first are named.
    """
    names = [
        name
        for name, inputs in seen.linears.items()
        if max(float(inputs.magnitude.max()), inputs.output) > LARGEST
        or cast_error(_folded(tower, name)) > _CAST_ERROR
    ]
    large = [index for index, value in enumerate(seen.residual) if value > LARGEST]
    blocks = range(large[0], len(seen.residual)) if large else ()
    return (*names, *(f"vision_model.encoder.layers.{index}" for index in blocks))


def cast_error(weight: Tensor) -> float:
    """Relative RMS of what a weight loses in fp16; infinite where it overflows."""
    wide = weight.detach().double()
    size = wide.norm()
    return float((wide - wide.to(torch.float16).double()).norm() / size) if size else 0.0


def _folded(tower: VisionTower, name: str) -> Tensor:
    linear, scale = linear_of(tower, name), scale_after(tower, name)
    return linear.weight if scale is None else fold_scale(linear, scale)[0]
