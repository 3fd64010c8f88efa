"""Convert `VisionTower` weights for the fused tower: fold, cast and quantize."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from vlmc.models.linears.e4m3 import E4M3_MAX
from vlmc.models.vision.fold_pixels import fold_pixels
from vlmc.models.vision.fused_tower import (
    CENTRE,
    PIXELS,
    SPAN,
    FusedBlock,
    FusedGelu,
    FusedLinear,
    FusedNorm,
    FusedResidual,
    FusedTower,
)
from vlmc.models.vision.tower import VisionBlock, VisionTower
from vlmc.models.vision.tower_precision import PROJECTOR, TowerPrecision, linear_name


@torch.no_grad()
def fuse(tower: VisionTower, precision: TowerPrecision) -> FusedTower:
    """The fused tower on the tower's device. Conversion is deterministic.

    Args:
        tower: weights in any dtype, already migrated if `precision` has clips. Constants are folded
            in fp32 and rounded once.
        precision: the precision of each linear.
    """
    residual = torch.float32 if precision.fp32_residual else precision.dtype
    embedding, positions = _embedding(tower, precision)
    norm, first, second = tower.mlp1[0], cast(nn.Linear, tower.mlp1[1]), tower.mlp1[3]
    second = cast(nn.Linear, second)
    blocks = [_block(block, index, precision) for index, block in enumerate(tower.blocks)]
    if precision.in_place:
        sums = positions.new_zeros(positions.shape[1])
        for residual_product in (part for block in blocks for part in (block.proj, block.fc2)):
            sums = residual_product.bias = sums + residual_product.bias
    return FusedTower(
        embedding=embedding,
        positions=positions,
        norms=[_norm(block.norm1) for block in tower.blocks],
        blocks=blocks,
        projector_norm=_norm(norm),
        projector=(
            FusedGelu(_linear(first.weight, PROJECTOR[0], precision), first.bias.float()),
            _linear(second.weight, PROJECTOR[1], precision),
        ),
        projector_bias=second.bias.float(),
        pixel_shuffle_version=tower.pixel_shuffle_version,
        dtype=precision.dtype,
        residual_dtype=residual,
    ).eval()


def _block(block: VisionBlock, index: int, precision: TowerPrecision) -> FusedBlock:
    attention, mlp = block.attn, block.mlp
    names = [linear_name(index, name) for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")]
    qkv, proj, first, second = names
    qkv_bias, proj_bias = None, attention.proj.bias.float()
    if attention.qkv.bias is not None:
        qkv_bias = attention.qkv.bias.detach().float().clone()
        values = slice(2 * qkv_bias.shape[0] // 3, None)
        # Attention weights sum to one, so a bias on the values passes through unchanged.
        proj_bias = proj_bias + attention.proj.weight.float() @ qkv_bias[values]
        qkv_bias[values] = 0
        qkv_bias = qkv_bias.to(torch.float32 if precision.mode(qkv) == "fp32" else precision.dtype)
    ls1, ls2 = block.ls1.float(), block.ls2.float()
    return FusedBlock(
        heads=attention.heads,
        dtype=precision.dtype,
        qkv=_linear(attention.qkv.weight, qkv, precision, qkv_bias),
        query_norm=None if attention.q_norm is None else _norm(attention.q_norm),
        key_norm=None if attention.k_norm is None else _norm(attention.k_norm),
        proj=_residual(attention.proj.weight, proj_bias, ls1, proj, precision),
        norm=_norm(block.norm2),
        fc1=FusedGelu(_linear(mlp.fc1.weight, first, precision), mlp.fc1.bias.float()),
        fc2=_residual(mlp.fc2.weight, mlp.fc2.bias.float(), ls2, second, precision),
    )


def _residual(
    weight: Tensor, bias: Tensor, scale: Tensor, name: str, precision: TowerPrecision
) -> FusedResidual:
    """The linear at the end of a residual branch, with bias and layer scale."""
    if precision.in_place:
        return FusedResidual(
            _linear(weight.float() * scale[:, None], name, precision), None, bias * scale
        )
    linear, gain = _linear_and_gain(weight, name, precision)
    return FusedResidual(linear, gain * scale, bias * scale)


def _linear(
    weight: Tensor, name: str, precision: TowerPrecision, bias: Tensor | None = None
) -> FusedLinear:
    """A linear whose fp8 weight has a per-tensor scale."""
    if precision.mode(name) != "fp8":
        return FusedLinear(weight.detach().to(precision.input_dtype(name)), bias)
    fp32 = weight.detach().float()
    scale = fp32.abs().amax().clamp_min(torch.finfo(torch.float32).tiny) / E4M3_MAX
    scales = _input_scale(name, precision, fp32), scale
    return FusedLinear(_rounded(fp32 / scale), bias, scales)


def _linear_and_gain(
    weight: Tensor, name: str, precision: TowerPrecision
) -> tuple[FusedLinear, Tensor]:
    """A linear whose fp8 weight has per-channel scales, and the gain (outputs) to apply."""
    outputs = torch.ones(weight.shape[0], device=weight.device)
    if precision.mode(name) != "fp8":
        return _linear(weight, name, precision), outputs
    fp32 = weight.detach().float()
    scales = fp32.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny) / E4M3_MAX
    # The product is stored in 16 bits, so the largest scale is applied before that. The gain is
    # the remaining ratio per channel.
    scale = scales.amax()
    input_and_weight = _input_scale(name, precision, fp32), scale
    linear = FusedLinear(_rounded(fp32 / scales[:, None]), scales=input_and_weight)
    return linear, scales / scale


def _rounded(values: Tensor) -> Tensor:
    return values.clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)


def _input_scale(name: str, precision: TowerPrecision, like: Tensor) -> Tensor:
    return like.new_tensor(precision.clips[name] / E4M3_MAX)


def _norm(norm: nn.Module) -> FusedNorm:
    weight = norm.weight.detach().float()  # type: ignore[operator]
    if isinstance(norm, nn.LayerNorm):
        return FusedNorm(weight, norm.bias.detach().float(), norm.eps)
    return FusedNorm(weight, None, float(norm.eps))  # type: ignore[arg-type]


def _embedding(tower: VisionTower, precision: TowerPrecision) -> tuple[FusedLinear, Tensor]:
    """Patch embedding of centred pixels, and positions (1025, hidden) with all biases folded in."""
    embeddings = tower.vision_model.embeddings
    kernel, bias = fold_pixels(embeddings.patch_embedding, offset=CENTRE, scale=SPAN)
    flat = kernel.float().permute(0, 2, 3, 1).flatten(1)  # the memory order of tiles
    weight = flat.new_zeros((len(flat), PIXELS))
    weight[:, : flat.shape[1]] = flat
    positions = embeddings.positions()[0].float()
    patches = positions[1:] + bias.float()
    first = positions[:1] + embeddings.class_embedding[0].float()
    return FusedLinear(weight.to(precision.dtype)), torch.cat((patches, first))
