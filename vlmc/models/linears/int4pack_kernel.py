"""4-bit linears in plain torch: `_weight_int4pack_mm` for few rows, otherwise cuBLAS."""

from __future__ import annotations

import torch
from torch import Tensor

from vlmc.checkpoint.packed import SYMMETRIC_ZERO, unpack
from vlmc.models.linears.int4_layout import TiledLayout, find_positions, plain_layout
from vlmc.models.linears.triton_kernels import dequantize_tiles

_INNER_TILES = 8
_TILE = (8, 16 * _INNER_TILES)
_GROUPS = (32, 64, 128, 256)
# With more rows it is slower than dequantizing and cuBLAS on every GPU.
_MAX_ROWS = 64


class Int4PackKernel:
    """A weight in the layout of `_weight_int4pack_mm`, if that supports its shape and dtype (bf16).

    `_weight_int4pack_mm` adds zero points in bf16 as (8 - zero) · scale, with an error of up to
    1/64 of a quantization step. Unsupported weights keep their layout and are dequantized for every
    product.
    """

    def __init__(self, packed: Tensor, scales: Tensor, zeros: Tensor | None) -> None:
        outputs, inputs = packed.shape[0], 8 * packed.shape[1]
        self.name = "torch"
        self.shape, self.group_size = (outputs, inputs), inputs // scales.shape[1]
        self.symmetric, self.dtype = zeros is None, scales.dtype
        self.scales, self.zeros = scales, zeros
        fits = outputs % _TILE[0] == 0 and inputs % _TILE[1] == 0
        if fits and self.dtype == torch.bfloat16 and self.group_size in _GROUPS:
            self.max_rows = _MAX_ROWS
            self.words = _repack(packed)
            # Scale and offset for each group and output: (groups, outputs, 2).
            shift = torch.zeros_like(scales)
            if zeros is not None:
                shift = (SYMMETRIC_ZERO - unpack(zeros.T).T.float()) * scales.float()
            self.pairs = torch.stack((scales.T, shift.T.to(scales.dtype)), dim=-1).contiguous()
            positions = find_positions(_repack, *_TILE, packed.device)
            columns = torch.arange(64, dtype=torch.int32, device=packed.device)
            self.layout = TiledLayout(*_TILE, inputs, _TILE[0] * _TILE[1] // 8, positions, columns)
        else:
            self.max_rows = 0
            self.words = packed
            self.layout = plain_layout(inputs, packed.device)

    def multiply(self, rows: Tensor) -> Tensor:
        """(rows, inputs) → (rows, outputs), for at most `max_rows`."""
        product: Tensor = torch._weight_int4pack_mm(rows, self.words, self.group_size, self.pairs)
        return product

    def dequantize(self) -> Tensor:
        """The weight (outputs, inputs), rounded once to its dtype."""
        return dequantize_tiles(self.words, self.layout, self.scales, self.zeros, self.shape)


def _repack(packed: Tensor) -> Tensor:
    """compressed-tensors' words (out, in/8) → torch's (out/8, in/128, 32, 4)."""
    # Two elements per byte, the first in the upper four bits.
    pairs = unpack(packed).view(packed.shape[0], -1, 2)
    halves = (pairs[..., 0] << 4 | pairs[..., 1]).contiguous()
    words: Tensor = torch._convert_weight_to_int4pack(halves, _INNER_TILES)
    return words
