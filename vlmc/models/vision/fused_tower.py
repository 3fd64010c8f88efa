"""The vision tower for CUDA: computes the same as `VisionTower` in fewer memory passes.

Rows hold the patches of all tiles, then all class tokens. Every linear is therefore one matrix
product, and the attention loop runs over 1024 keys. The bias of the values is folded into the bias
of `proj`. Elementwise operations outside `fused_ops` are plain torch, which the compiler fuses.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmc.models.vision.fused_ops import (
    PATCHES,
    add_norm,
    add_product,
    attend,
    linear_gelu,
    normalize,
    quantize,
)
from vlmc.models.vision.tower import pixel_shuffle

PATCH, GRID = 14, 32  # pixels per patch side, patches per tile side
PIXELS = 592  # 3 · 14² values per patch, padded to a multiple of 16 bytes
CENTRE, SPAN = 128, 256
"""The input is (pixel - 128) / 256, which fp16 and bf16 represent exactly."""


class FusedLinear(nn.Module):
    """A linear in fp32, 16 bits, or fp8 with per-tensor scales for input and weight."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        scales: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight)  # (outputs, inputs)
        self.register_buffer("bias", bias)  # (outputs) in the result's dtype
        self.weight: Tensor
        self.bias: Tensor | None
        self.input_scale: Tensor | None
        self.weight_scale: Tensor | None
        self.register_buffer("input_scale", None if scales is None else scales[0])
        self.register_buffer("weight_scale", None if scales is None else scales[1])

    def cast_input(self, states: Tensor) -> Tensor:
        """Cast or quantize fp32 `states` to this linear's input dtype."""
        if self.input_scale is None:
            return states.to(self.weight.dtype)
        return quantize(states, self.input_scale)

    def product(self, states: Tensor, dtype: torch.dtype) -> Tensor:
        """Input from `cast_input` → (rows, outputs) in `dtype`; fp32 linears return fp32."""
        if self.input_scale is None or self.weight_scale is None:
            return functional.linear(states, self.weight, self.bias)
        if states.is_cuda:
            product: Tensor = torch._scaled_mm(
                states,
                self.weight.T,
                self.input_scale,
                self.weight_scale,
                bias=self.bias,
                out_dtype=dtype,
                use_fast_accum=True,
            )
            return product
        scale = self.input_scale * self.weight_scale
        product = states.float() @ self.weight.float().T * scale
        return (product if self.bias is None else product + self.bias).to(dtype)


class FusedNorm(nn.Module):
    """LayerNorm in fp32, or RMSNorm if `bias` is None."""

    def __init__(self, weight: Tensor, bias: Tensor | None, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight: Tensor
        self.bias: Tensor | None
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, states: Tensor) -> Tensor:
        """Normalize the last dimension of fp32 `states`."""
        return normalize(states, self.weight, self.bias, self.eps)


class FusedResidual(nn.Module):
    """The linear at the end of a residual branch, with bias and layer scale.

    If the stream and all linears share one dtype, the product is accumulated into the stream in
    place, which saves a memory pass. The layer scale is then folded into the weight and `gain` is
    None. The stream lacks all biases so far; `bias` is their sum, and readers of the stream add it.
    Otherwise the kernel that computes the next norm applies `gain` (the layer scale) and `bias`.
    """

    def __init__(self, linear: FusedLinear, gain: Tensor | None, bias: Tensor) -> None:
        super().__init__()
        self.linear = linear
        self.gain: Tensor | None
        self.bias: Tensor
        self.register_buffer("gain", gain)  # fp32 (hidden), or None
        self.register_buffer("bias", bias)  # fp32 (hidden)

    def forward(self, states: Tensor, inputs: Tensor, dtype: torch.dtype) -> Tensor:
        """Add the branch to the stream, including all biases; may overwrite `states`.

        Args:
            states: the residual stream (rows, hidden).
            inputs: the linear's input (rows, inputs).
            dtype: dtype of the product.

        Returns:
            The stream (rows, hidden).
        """
        if self.gain is None:
            add_product(states, inputs, self.linear.weight)
            return (states.float() + self.bias).to(states.dtype)
        mixed = self.linear.product(inputs, dtype).float()
        return (states.float() + mixed * self.gain + self.bias).to(states.dtype)

    def then_norm(
        self,
        states: Tensor,
        inputs: Tensor,
        dtype: torch.dtype,
        norm: FusedNorm,
        following: FusedLinear,
    ) -> tuple[Tensor, Tensor]:
        """Add the branch to the stream and normalize it; may overwrite `states`.

        Returns:
            The stream (rows, hidden), and its norm as the input of `following`.
        """
        if self.gain is None:
            add_product(states, inputs, self.linear.weight)
            return states, following.cast_input(norm(states.float() + self.bias))
        added, normed = add_norm(
            states,
            self.linear.product(inputs, dtype),
            self.gain,
            self.bias,
            norm.weight,
            norm.bias,
            norm.eps,
            following.input_scale,
            following.weight.dtype,
        )
        return added, normed


class FusedGelu(nn.Module):
    """A linear followed by GELU."""

    def __init__(self, linear: FusedLinear, bias: Tensor) -> None:
        super().__init__()
        self.linear = linear
        self.bias: Tensor
        self.register_buffer("bias", bias)  # fp32 (outputs)

    def forward(self, states: Tensor, dtype: torch.dtype, following: FusedLinear) -> Tensor:
        """The linear's input (rows, inputs) → the input of `following` (rows, outputs)."""
        linear = self.linear
        if linear.weight.dtype == following.weight.dtype and dtype != torch.float32:
            scales = linear.input_scale, linear.weight_scale
            if (
                scales[0] is not None
                and scales[1] is not None
                and following.input_scale is not None
            ):
                inner: Tensor = linear_gelu(
                    states, linear.weight, *scales, self.bias, following.input_scale
                )
                return inner
            if linear.weight.dtype == dtype:
                # On CUDA this epilogue is the tanh approximation of GELU, within 5e-4 of the exact
                # one. A separate pass for exact GELU costs a tenth of the tower's time.
                return torch._addmm_activation(
                    self.bias.to(dtype), states, linear.weight.T, use_gelu=True
                )
        product = linear.product(states, dtype).float()
        return following.cast_input(functional.gelu(product + self.bias))


class FusedBlock(nn.Module):
    """A block without its first norm, which the preceding block computes."""

    def __init__(
        self,
        heads: int,
        dtype: torch.dtype,
        qkv: FusedLinear,
        query_norm: FusedNorm | None,
        key_norm: FusedNorm | None,
        proj: FusedResidual,
        norm: FusedNorm,
        fc1: FusedGelu,
        fc2: FusedResidual,
    ) -> None:
        super().__init__()
        self.heads, self.dtype = heads, dtype
        self.qkv, self.query_norm, self.key_norm, self.proj = qkv, query_norm, key_norm, proj
        self.norm, self.fc1, self.fc2 = norm, fc1, fc2

    def forward(self, states: Tensor, normed: Tensor) -> tuple[Tensor, Tensor]:
        """Run attention and the first half of the MLP.

        Args:
            states: the residual stream (rows, hidden).
            normed: its norm, as the input of `qkv`.

        Returns:
            The stream after attention, and the input of `fc2`.
        """
        attended = self._attend(normed)
        states, normed = self.proj.then_norm(
            states, attended, self.dtype, self.norm, self.fc1.linear
        )
        return states, self.fc1(normed, self.dtype, self.fc2.linear)

    def _attend(self, normed: Tensor) -> Tensor:
        qkv = self.qkv.product(normed, self.dtype).to(self.dtype)
        query, key, value = qkv.chunk(3, dim=1)  # each (rows, hidden)
        if self.query_norm is not None and self.key_norm is not None:
            query = self.query_norm(query.float()).to(self.dtype)
            key = self.key_norm(key.float()).to(self.dtype)
        proj = self.proj.linear
        mixed: Tensor = attend(query, key, value, proj.input_scale, self.heads)
        return mixed if proj.input_scale is not None else mixed.to(proj.weight.dtype)


class FusedTower(nn.Module):
    """uint8 tiles to features. `vlmc.models.vision.fuse` creates it."""

    def __init__(
        self,
        embedding: FusedLinear,
        positions: Tensor,
        norms: list[FusedNorm],
        blocks: list[FusedBlock],
        projector_norm: FusedNorm,
        projector: tuple[FusedGelu, FusedLinear],
        projector_bias: Tensor,
        pixel_shuffle_version: Literal["v1", "v2"],
        dtype: torch.dtype,
        residual_dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.dtype, self.residual_dtype = dtype, residual_dtype
        self.pixel_shuffle_version = pixel_shuffle_version
        self.embedding = embedding
        self.norms, self.blocks = nn.ModuleList(norms), nn.ModuleList(blocks)  # norms before qkv
        self.projector_norm = projector_norm
        self.projector_gelu, self.projector = projector
        self.positions: Tensor
        self.projector_bias: Tensor
        self.register_buffer("positions", positions)  # (1025, hidden), the class token last
        self.register_buffer("projector_bias", projector_bias)

    def forward(self, tiles: Tensor) -> Tensor:
        """uint8 tiles (N, 448, 448, 3) → features (N, 256, language hidden size)."""
        count = tiles.shape[0]
        patches = self.encode(tiles).view(count, PATCHES, -1)
        shuffled = pixel_shuffle(patches, self.pixel_shuffle_version)  # (N, 256, 4 · hidden)
        normed = self.projector_norm(shuffled.float()).flatten(0, 1)
        inputs = self.projector_gelu.linear.cast_input(normed)
        inner: Tensor = self.projector_gelu(inputs, self.dtype, self.projector)
        projected = self.projector.product(inner, self.dtype).float() + self.projector_bias
        return projected.to(self.dtype).view(count, PATCHES // 4, -1)

    def encode(self, tiles: Tensor) -> Tensor:
        """uint8 tiles (N, 448, 448, 3) → patches after the last block (1024 · N, hidden)."""
        patches = slice(tiles.shape[0] * PATCHES)
        blocks = cast("list[FusedBlock]", list(self.blocks))
        norms = cast("list[FusedNorm]", list(self.norms))
        embedded = self._embed(tiles)
        states = embedded.to(self.residual_dtype)
        if not blocks:
            return states[patches]
        normed = blocks[0].qkv.cast_input(norms[0](embedded))
        for block, norm, following in zip(blocks[:-1], norms[1:], blocks[1:], strict=True):
            states, inner = block(states, normed)
            states, normed = block.fc2.then_norm(states, inner, self.dtype, norm, following.qkv)
        states, inner = blocks[-1](states, normed)
        added: Tensor = blocks[-1].fc2(states, inner, self.dtype)
        return added[patches]

    def _embed(self, tiles: Tensor) -> Tensor:
        """uint8 tiles → fp32 (1025 · N, hidden): patches, then class tokens."""
        count = tiles.shape[0]
        square = tiles.view(count, GRID, PATCH, GRID, PATCH, 3).permute(0, 1, 3, 2, 4, 5)
        pixels = square.reshape(count * PATCHES, 3 * PATCH * PATCH)
        centred = (pixels.to(self.embedding.weight.dtype) - CENTRE) / SPAN
        padded = functional.pad(centred, (0, PIXELS - 3 * PATCH * PATCH))
        embedded = self.embedding.product(padded, self.dtype).float()
        patches = embedded.view(count, PATCHES, -1) + self.positions[:PATCHES]
        first = self.positions[PATCHES:].expand(count, -1)
        return torch.cat((patches.flatten(0, 1), first))
