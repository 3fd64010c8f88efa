"""fp8 weights for the language model: E4M3 with a scale for each output."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import torch
from torch import Tensor

from vlmc.models.linears.e4m3 import E4M3_MAX


def fp8_tensors(
    tensors: Iterable[tuple[str, Tensor]], quantized: Collection[str]
) -> Iterator[tuple[str, Tensor]]:
    """The tensors, with the weights of the linears in `quantized` in fp8.

    Such a weight (outputs, inputs) becomes `weight` in E4M3 and `weight_scale` (outputs, 1) in the
    weight's dtype: its largest value of each output is E4M3's, 448.
    """
    for name, tensor in tensors:
        layer, _, kind = name.rpartition(".")
        if kind != "weight" or layer not in quantized:
            yield name, tensor
            continue
        values, scale = to_fp8(tensor)
        yield name, values
        yield f"{name}_scale", scale


def to_fp8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """E4M3 values (outputs, inputs) and scales (outputs, 1) of a finite weight.

    The scale is rounded to the weight's dtype first, so that the values are rounded by what they
    will be multiplied with; what then passes 448 is cut to it.
    """
    exact = weight.float()
    # An output of zeros alone has any scale.
    smallest = torch.finfo(weight.dtype).tiny
    scale = (exact.abs().amax(dim=1, keepdim=True) / E4M3_MAX).clamp(min=smallest)
    scale = scale.to(weight.dtype)
    values = (exact / scale.float()).clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)
    return values, scale
