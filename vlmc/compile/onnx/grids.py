"""The two 8-bit grids, int8 and fp8 (E4M3), as Q/DQ nodes compute them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vlmc.models.linears.e4m3 import E4M3_MAX

GridName = Literal["int8", "fp8"]
# The smallest positive fp16 number: a scale of zero would divide by it.
_SMALLEST = 2.0**-24


@dataclass(frozen=True, slots=True)
class Grid:
    """Symmetric; a value of magnitude `limit` · scale is the largest that both signs have."""

    name: GridName
    limit: float
    dtype: torch.dtype

    def store(self, values: Tensor, scale: Tensor) -> Tensor:
        """Nearest grid values of `values` / `scale`, saturated, in the grid's dtype."""
        scaled = values.float() / scale.float()
        if self.name == "int8":
            return scaled.round().clamp(-128, 127).to(torch.int8)
        return scaled.clamp(-self.limit, self.limit).to(torch.float8_e4m3fn)

    def fake(self, values: Tensor, scale: Tensor) -> Tensor:
        """The fp32 values that `values` become through the grid and back."""
        return self.store(values, scale).float() * scale.float()

    def activation_scale(self, clip: float, dtype: torch.dtype) -> Tensor:
        """The scale, () in `dtype`, by which magnitudes up to `clip` are on the grid."""
        return _typed(torch.tensor(clip / self.limit), dtype)

    def weight_scale(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """Scales of a weight (outputs, inputs) for each output, (outputs, 1) in `dtype`."""
        return _typed(weight.float().abs().amax(dim=1, keepdim=True) / self.limit, dtype)


GRIDS: dict[str, Grid] = {
    "int8": Grid("int8", 127.0, torch.int8),
    "fp8": Grid("fp8", E4M3_MAX, torch.float8_e4m3fn),
}


def _typed(scale: Tensor, dtype: torch.dtype) -> Tensor:
    """The scale in `dtype`, rounded up so that nothing is saturated for its rounding."""
    scale = scale.clamp_min(_SMALLEST)
    typed = scale.to(dtype)
    if dtype != torch.float16:
        return typed
    higher = (typed.view(torch.int16) + 1).view(torch.float16)
    return torch.where(typed.float() < scale, higher, typed)
