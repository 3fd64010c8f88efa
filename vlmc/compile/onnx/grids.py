"""The 8-bit quantization grids int8 and fp8 (E4M3), with the arithmetic of Q/DQ nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vlmc.models.linears.e4m3 import E4M3_MAX

GridName = Literal["int8", "fp8"]
# The smallest positive fp16 number, because a scale of zero leads to a division by zero.
_SMALLEST = 2.0**-24


@dataclass(frozen=True, slots=True)
class Grid:
    """A symmetric grid; the largest magnitude of both signs is `limit` · scale."""

    name: GridName
    limit: float
    dtype: torch.dtype

    def store(self, values: Tensor, scale: Tensor) -> Tensor:
        """Quantize `values` with `scale` to the grid's dtype, with saturation."""
        scaled = values.float() / scale.float()
        if self.name == "int8":
            return scaled.round().clamp(-128, 127).to(torch.int8)
        return scaled.clamp(-self.limit, self.limit).to(torch.float8_e4m3fn)

    def fake(self, values: Tensor, scale: Tensor) -> Tensor:
        """Quantize and dequantize `values`; returns fp32."""
        return self.store(values, scale).float() * scale.float()

    def activation_scale(self, clip: float, dtype: torch.dtype) -> Tensor:
        """The scale, () in `dtype`, for magnitudes up to `clip`."""
        return _typed(torch.tensor(clip / self.limit), dtype)

    def weight_scale(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """Per-channel scales (outputs, 1) in `dtype` of a weight (outputs, inputs)."""
        return _typed(weight.float().abs().amax(dim=1, keepdim=True) / self.limit, dtype)


GRIDS: dict[str, Grid] = {
    "int8": Grid("int8", 127.0, torch.int8),
    "fp8": Grid("fp8", E4M3_MAX, torch.float8_e4m3fn),
}


def _typed(scale: Tensor, dtype: torch.dtype) -> Tensor:
    """The scale in `dtype`, rounded up so that rounding does not cause saturation."""
    scale = scale.clamp_min(_SMALLEST)
    typed = scale.to(dtype)
    if dtype != torch.float16:
        return typed
    higher = (typed.view(torch.int16) + 1).view(torch.float16)
    return torch.where(typed.float() < scale, higher, typed)
