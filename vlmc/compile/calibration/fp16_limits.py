"""Find the parts of a tower that overflow or lose precision in fp16."""

from __future__ import annotations

import torch
from torch import Tensor

from vlmc.compile.calibration.observe import Observations, scale_after
from vlmc.compile.onnx.typed_tower import fold_scale
from vlmc.models.vision.calibration_ranges import linear_of
from vlmc.models.vision.tower import VisionTower

LARGEST = 65504 / 4
"""The largest observed magnitude allowed in fp16. Other tiles may exceed it up to fourfold."""
# Twice the rounding error of fp16's 11 bits. A larger error means subnormal values.
_CAST_ERROR = 2.0**-11


def unfit_for_fp16(tower: VisionTower, seen: Observations) -> tuple[str, ...]:
    """Names of the linears and blocks to compute in fp32.

    These are linears whose inputs, outputs or folded weights fp16 cannot represent, and all blocks
    from the first whose residual stream it cannot represent, because outliers stay in the stream.
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
    """Relative RMS error of a weight in fp16; infinite if it overflows."""
    fp64 = weight.detach().double()
    size = fp64.norm()
    return float((fp64 - fp64.to(torch.float16).double()).norm() / size) if size else 0.0


def _folded(tower: VisionTower, name: str) -> Tensor:
    linear, scale = linear_of(tower, name), scale_after(tower, name)
    return linear.weight if scale is None else fold_scale(linear, scale)[0]
