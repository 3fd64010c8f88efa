"""The precision of each linear of a fused tower."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

from vlmc.artifact.manifest import CALIBRATED_PRECISIONS
from vlmc.errors import IntegrityError
from vlmc.models.vision.calibration_ranges import Ranges

Mode = Literal["fp32", "16bit", "fp8"]

_DTYPES = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp8": torch.float16,
}
PROJECTOR = ("mlp1.1", "mlp1.3")


def linear_name(layer: int, linear: str) -> str:
    """Full name in `VisionTower` of a block's linear, such as `attn.qkv`."""
    return f"vision_model.encoder.layers.{layer}.{linear}"


@dataclass(frozen=True, slots=True)
class TowerPrecision:
    """Precisions of a fused tower; linears are named as in `VisionTower`.

    Attributes:
        dtype: the dtype of everything that the other attributes do not name.
        clips: fp8 linears, and the magnitude at which their input saturates.
        fp32: linears computed in fp32, because their values overflow `dtype`.
        fp32_residual: whether the residual stream is kept in fp32.
    """

    dtype: torch.dtype
    clips: Mapping[str, float] = field(default_factory=dict)
    fp32: frozenset[str] = frozenset()
    fp32_residual: bool = False

    @property
    def in_place(self) -> bool:
        """Whether linears accumulate into the residual stream, because all share one dtype."""
        return not (self.clips or self.fp32 or self.fp32_residual)

    def mode(self, linear: str) -> Mode:
        """The precision the linear computes in."""
        if linear in self.fp32:
            return "fp32"
        return "fp8" if linear in self.clips else "16bit"

    def input_dtype(self, linear: str) -> torch.dtype:
        """The dtype of the linear's input."""
        modes = {"fp32": torch.float32, "16bit": self.dtype, "fp8": torch.float8_e4m3fn}
        return modes[self.mode(linear)]


def tower_precision_of(precision: str, ranges: Ranges | None) -> TowerPrecision:
    """Precisions of a fused tower for an artifact's vision precision.

    Raises:
        IntegrityError: the fused tower does not support `precision`, or `ranges` is missing.
    """
    dtype = _DTYPES.get(precision)
    if dtype is None or (ranges is None and precision in CALIBRATED_PRECISIONS):
        raise IntegrityError(
            f"an artifact has no tower for inductor in {precision}"
            f"{'' if ranges is not None else ' without ranges.json'}; build it again"
        )
    if ranges is None:
        return TowerPrecision(dtype)
    clips = {
        name: linear.clip
        for name, linear in ranges.linears.items()
        if precision == "fp8" and linear.clip is not None and name not in ranges.keep_16bit
    }
    fp32 = frozenset(ranges.keep_fp32)
    linears = frozenset(ranges.linears)
    return TowerPrecision(dtype, clips, fp32 & linears, fp32_residual=bool(fp32 - linears))
