"""Which linear of a fused tower computes in which precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

Mode = Literal["wide", "16bit", "fp8"]

FP8_MAX = 448.0  # of E4M3
PROJECTOR = ("mlp1.1", "mlp1.3")


def linear_name(layer: int, linear: str) -> str:
    """The name that `VisionTower` gives a block's linear, `attn.qkv` for example."""
    return f"vision_model.encoder.layers.{layer}.{linear}"


@dataclass(frozen=True, slots=True)
class FusedPlan:
    """Precisions of a fused tower; linears are named as in `VisionTower`.

    `dtype` is that of everything not named here; `clips` has the largest magnitude that the input
    of an fp8 linear keeps; `wide` are linears that `dtype` cannot hold, computed in fp32, and
    `wide_residual` keeps the residual stream in fp32.
    """

    dtype: torch.dtype
    clips: Mapping[str, float] = field(default_factory=dict)
    wide: frozenset[str] = frozenset()
    wide_residual: bool = False

    def mode(self, linear: str) -> Mode:
        """What the linear computes in."""
        if linear in self.wide:
            return "wide"
        return "fp8" if linear in self.clips else "16bit"

    def input_dtype(self, linear: str) -> torch.dtype:
        """What the linear takes."""
        modes = {"wide": torch.float32, "16bit": self.dtype, "fp8": torch.float8_e4m3fn}
        return modes[self.mode(linear)]
