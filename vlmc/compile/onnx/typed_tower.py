"""The tower for ONNX export: explicitly typed, with constants folded."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmc.models.norm import RMSNorm
from vlmc.models.vision.fold_pixels import fold_pixels
from vlmc.models.vision.tower import VisionBlock, VisionTower, pixel_shuffle

# The input is (x - 128) / 64, which is exact in fp16 and bf16 and keeps the weights' magnitude.
_PIXEL_OFFSET, _PIXEL_SCALE = 128, 64


class TypedTower(nn.Module):
    """uint8 tiles (N, 448, 448, 3) → features (N, 256, language hidden size) in `dtype`.

    Pixel normalization is folded into the patch embedding, its bias into the positions, and layer
    scales into the preceding linears, in fp64 and rounded once. `keep_fp32` names linears computed
    in fp32, and blocks whose residual stream is in fp32. Parameters have the names of
    `VisionTower`; weights are transposed.
    """

    def __init__(
        self, tower: VisionTower, dtype: torch.dtype, keep_fp32: Collection[str] = ()
    ) -> None:
        super().__init__()
        embeddings = tower.vision_model.embeddings
        patches = embeddings.patch_embedding
        self.dtype, self.version = dtype, tower.pixel_shuffle_version
        self.stride = patches.stride
        weight, bias = fold_pixels(patches, offset=_PIXEL_OFFSET, scale=_PIXEL_SCALE)
        positions = embeddings.positions().double()
        # ONNX supports bf16 convolutions from opset 22 on.
        self.patch_weight = _constant(weight, torch.float32 if dtype == torch.bfloat16 else dtype)
        self.first = _constant(embeddings.class_embedding.double() + positions[:, :1], dtype)
        self.positions = _constant(positions[:, 1:] + bias, dtype)
        self.vision_model = _Encoder(tower.blocks, dtype, keep_fp32)
        norm, first, gelu, second = tower.mlp1
        self.mlp1 = nn.Sequential(
            _norm(norm, self.vision_model.stream),
            _linear(first, "mlp1.1", dtype, keep_fp32),
            gelu,
            _linear(second, "mlp1.3", dtype, keep_fp32),
        )

    def forward(self, tiles: Tensor) -> Tensor:
        """uint8 (N, 448, 448, 3) → (N, 256, hidden)."""
        pixels = (tiles.to(self.patch_weight.dtype) - _PIXEL_OFFSET) * (1 / _PIXEL_SCALE)
        patches = functional.conv2d(
            pixels.permute(0, 3, 1, 2), self.patch_weight, stride=self.stride
        )
        patches = patches.flatten(2).transpose(1, 2).to(self.dtype) + self.positions
        states = torch.cat((self.first.expand(patches.shape[0], -1, -1), patches), dim=1)
        states = self.vision_model(states)
        features: Tensor = self.mlp1(pixel_shuffle(states[:, 1:], self.version))
        return features.to(self.dtype)


class TypedLinear(nn.Module):
    """`x @ weight + bias` in the weight's dtype; weight (inputs, outputs)."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = _constant(weight.T.contiguous(), dtype)
        self.bias = None if bias is None else _constant(bias, dtype)

    def forward(self, states: Tensor) -> Tensor:
        """(…, inputs) → (…, outputs)."""
        product = states.to(self.weight.dtype) @ self.weight
        return product if self.bias is None else product + self.bias


class _Encoder(nn.Module):
    """The blocks under `encoder.layers`, as in the checkpoint."""

    def __init__(
        self, blocks: Sequence[VisionBlock], dtype: torch.dtype, keep_fp32: Collection[str]
    ) -> None:
        super().__init__()
        self.stream = dtype  # dtype of the residual stream after the last block
        layers = []
        for index, block in enumerate(blocks):
            name = f"vision_model.encoder.layers.{index}"
            # Once in fp32, the residual stream stays in fp32.
            self.stream = torch.float32 if name in keep_fp32 else self.stream
            layers.append(_Block(block, name, dtype, self.stream, keep_fp32))
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(layers)})

    def forward(self, states: Tensor) -> Tensor:
        for block in self.encoder["layers"]:  # type: ignore[attr-defined]
            states = block(states)
        return states


class _Block(nn.Module):
    def __init__(
        self,
        block: VisionBlock,
        name: str,
        dtype: torch.dtype,
        stream: torch.dtype,
        keep_fp32: Collection[str],
    ) -> None:
        super().__init__()
        self.stream = stream
        self.norm1, self.norm2 = _norm(block.norm1, stream), _norm(block.norm2, stream)
        self.attn = _Attention(block, f"{name}.attn", dtype, keep_fp32)
        self.mlp = _MLP(block, f"{name}.mlp", dtype, keep_fp32)

    def forward(self, states: Tensor) -> Tensor:
        states = states.to(self.stream)
        states = states + self.attn(self.norm1(states)).to(self.stream)
        mixed: Tensor = states + self.mlp(self.norm2(states)).to(self.stream)
        return mixed


class _Attention(nn.Module):
    def __init__(
        self, block: VisionBlock, name: str, dtype: torch.dtype, keep_fp32: Collection[str]
    ) -> None:
        super().__init__()
        attention = block.attn
        self.heads = attention.heads
        self.qkv = _linear(attention.qkv, f"{name}.qkv", dtype, keep_fp32)
        self.proj = _linear(attention.proj, f"{name}.proj", dtype, keep_fp32, block.ls1)
        self.q_norm = None if attention.q_norm is None else _norm(attention.q_norm, dtype)
        self.k_norm = None if attention.k_norm is None else _norm(attention.k_norm, dtype)

    def forward(self, states: Tensor) -> Tensor:
        product = self.qkv(states)
        if self.q_norm is not None and self.k_norm is not None:
            query, key, value = product.chunk(3, dim=-1)
            query, key = self._split(self.q_norm(query)), self._split(self.k_norm(key))
            value = self._split(value)
        else:
            # Split heads first: TensorRT-RTX folds a split of the product's columns into the
            # weight, and then uses 16 bits even if both operands are quantized to 8 bits.
            query, key, value = self._split(product, 3).chunk(3, dim=1)
        attended = functional.scaled_dot_product_attention(query, key, value)
        mixed: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return mixed

    def _split(self, states: Tensor, parts: int = 1) -> Tensor:
        return states.view(*states.shape[:2], parts * self.heads, -1).transpose(1, 2)


class _MLP(nn.Module):
    def __init__(
        self, block: VisionBlock, name: str, dtype: torch.dtype, keep_fp32: Collection[str]
    ) -> None:
        super().__init__()
        self.fc1 = _linear(block.mlp.fc1, f"{name}.fc1", dtype, keep_fp32)
        self.fc2 = _linear(block.mlp.fc2, f"{name}.fc2", dtype, keep_fp32, block.ls2)

    def forward(self, states: Tensor) -> Tensor:
        mixed: Tensor = self.fc2(functional.gelu(self.fc1(states)))
        return mixed


def fold_scale(linear: nn.Linear, scale: Tensor) -> tuple[Tensor, Tensor | None]:
    """Weight (outputs, inputs) and bias of `linear(x) * scale`, in fp64."""
    bias = None if linear.bias is None else linear.bias.double() * scale.double()
    return linear.weight.double() * scale.double()[:, None], bias


def _linear(
    linear: nn.Module,
    name: str,
    dtype: torch.dtype,
    keep_fp32: Collection[str],
    scale: Tensor | None = None,
) -> TypedLinear:
    if not isinstance(linear, nn.Linear):
        raise TypeError(f"{name} is not a linear")
    dtype = torch.float32 if name in keep_fp32 else dtype
    if scale is None:
        return TypedLinear(linear.weight, linear.bias, dtype)
    return TypedLinear(*fold_scale(linear, scale), dtype)


def _norm(norm: nn.Module, dtype: torch.dtype) -> nn.Module:
    typed: nn.Module
    if isinstance(norm, RMSNorm):
        typed = RMSNorm(norm.weight.numel(), norm.eps)
    elif isinstance(norm, nn.LayerNorm):
        typed = nn.LayerNorm(norm.weight.numel(), eps=norm.eps)
        typed.bias = _constant(norm.bias, dtype)
    else:
        raise TypeError(f"{type(norm).__name__} is not a supported norm")
    typed.weight = _constant(norm.weight, dtype)
    return typed


def _constant(values: Tensor, dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(values.detach().to(dtype), requires_grad=False)
