"""Packed weights read back by the definition of their layout, for tests and benchmarks."""

from __future__ import annotations

import torch
from torch import Tensor


def dequantized(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a language folder with 4-bit weights as fp32 `weight`s, all others in fp32."""
    whole: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        layer, _, kind = name.rpartition(".")
        if kind == "weight_packed":
            outputs, inputs = tensors[f"{layer}.weight_shape"].tolist()
            scale = tensors[f"{layer}.weight_scale"].float()
            zero = torch.full((outputs, scale.shape[1]), 8)
            if f"{layer}.weight_zero_point" in tensors:
                zero = nibbles(tensors[f"{layer}.weight_zero_point"].T).T[:outputs]
            spread = inputs // scale.shape[1]
            offset = nibbles(tensor)[:, :inputs] - zero.repeat_interleave(spread, 1)
            whole[f"{layer}.weight"] = offset * scale.repeat_interleave(spread, 1)
        elif not kind.startswith("weight_"):
            whole[name] = tensor.float()
    return whole


def nibbles(words: Tensor) -> Tensor:
    """int32 (rows, columns) → int64 0..15 (rows, 8 · columns), the lowest four bits first."""
    shifts = torch.arange(0, 32, 4)
    return ((words.long()[..., None] >> shifts) & 15).flatten(-2)
