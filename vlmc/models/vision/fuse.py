"""From the tower's own weights to those of the fused tower: folded, cast and quantized."""

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
def fuse(tower: VisionTower, plan: TowerPrecision) -> FusedTower:
    """The fused tower on the tower's device, the same bits for the same weights and plan.

    The tower may be in any dtype; everything is folded in fp32 and rounded once. `plan.clips` are
    of the tower as it is given, after any migration of its channels.
    """
    residual = torch.float32 if plan.fp32_residual else plan.dtype
    embedding, positions = _embedding(tower, plan)
    norm, first, second = tower.mlp1[0], cast(nn.Linear, tower.mlp1[1]), tower.mlp1[3]
    second = cast(nn.Linear, second)
    blocks = [_block(block, index, plan) for index, block in enumerate(tower.blocks)]
    if plan.in_place:
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
            FusedGelu(_linear(first.weight, PROJECTOR[0], plan), first.bias.float()),
            _linear(second.weight, PROJECTOR[1], plan),
        ),
        projector_bias=second.bias.float(),
        pixel_shuffle_version=tower.pixel_shuffle_version,
        dtype=plan.dtype,
        residual_dtype=residual,
    ).eval()


def _block(block: VisionBlock, index: int, plan: TowerPrecision) -> FusedBlock:
    attention, mlp = block.attn, block.mlp
    names = [linear_name(index, name) for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")]
    qkv, proj, first, second = names
    qkv_bias, proj_bias = None, attention.proj.bias.float()
    if attention.qkv.bias is not None:
        qkv_bias = attention.qkv.bias.detach().float().clone()
        values = slice(2 * qkv_bias.shape[0] // 3, None)
        # Weights of attention sum to one, so a bias of values comes out of it unchanged.
        proj_bias = proj_bias + attention.proj.weight.float() @ qkv_bias[values]
        qkv_bias[values] = 0
        qkv_bias = qkv_bias.to(torch.float32 if plan.mode(qkv) == "fp32" else plan.dtype)
    ls1, ls2 = block.ls1.float(), block.ls2.float()
    return FusedBlock(
        heads=attention.heads,
        dtype=plan.dtype,
        qkv=_linear(attention.qkv.weight, qkv, plan, qkv_bias),
        query_norm=None if attention.q_norm is None else _norm(attention.q_norm),
        key_norm=None if attention.k_norm is None else _norm(attention.k_norm),
        proj=_residual(attention.proj.weight, proj_bias, ls1, proj, plan),
        norm=_norm(block.norm2),
        fc1=FusedGelu(_linear(mlp.fc1.weight, first, plan), mlp.fc1.bias.float()),
        fc2=_residual(mlp.fc2.weight, mlp.fc2.bias.float(), ls2, second, plan),
    )


def _residual(
    weight: Tensor, bias: Tensor, scale: Tensor, name: str, plan: TowerPrecision
) -> FusedResidual:
    """What a block adds: the linear, and its bias under the layer scale."""
    if plan.in_place:
        return FusedResidual(
            _linear(weight.float() * scale[:, None], name, plan), None, bias * scale
        )
    linear, gain = _linear_and_gain(weight, name, plan)
    return FusedResidual(linear, gain * scale, bias * scale)


def _linear(
    weight: Tensor, name: str, plan: TowerPrecision, bias: Tensor | None = None
) -> FusedLinear:
    """With one scale for the whole weight where it is quantized."""
    if plan.mode(name) != "fp8":
        return FusedLinear(weight.detach().to(plan.input_dtype(name)), bias)
    fp32 = weight.detach().float()
    scale = fp32.abs().amax().clamp_min(torch.finfo(torch.float32).tiny) / E4M3_MAX
    scales = _input_scale(name, plan, fp32), scale
    return FusedLinear(_rounded(fp32 / scale), bias, scales)


def _linear_and_gain(weight: Tensor, name: str, plan: TowerPrecision) -> tuple[FusedLinear, Tensor]:
    """With a scale for each output, which its `gain` (outputs) undoes after the product."""
    outputs = torch.ones(weight.shape[0], device=weight.device)
    if plan.mode(name) != "fp8":
        return _linear(weight, name, plan), outputs
    fp32 = weight.detach().float()
    scales = fp32.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny) / E4M3_MAX
    # The product leaves in 16 bits, so it is brought to its true size but for a ratio near one.
    scale = scales.amax()
    input_and_weight = _input_scale(name, plan, fp32), scale
    linear = FusedLinear(_rounded(fp32 / scales[:, None]), scales=input_and_weight)
    return linear, scales / scale


def _rounded(values: Tensor) -> Tensor:
    return values.clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)


def _input_scale(name: str, plan: TowerPrecision, like: Tensor) -> Tensor:
    return like.new_tensor(plan.clips[name] / E4M3_MAX)


def _norm(norm: nn.Module) -> FusedNorm:
    weight = norm.weight.detach().float()  # type: ignore[operator]
    if isinstance(norm, nn.LayerNorm):
        return FusedNorm(weight, norm.bias.detach().float(), norm.eps)
    return FusedNorm(weight, None, float(norm.eps))  # type: ignore[arg-type]


def _embedding(tower: VisionTower, plan: TowerPrecision) -> tuple[FusedLinear, Tensor]:
    """The patch embedding of centred pixels, and positions (1025, hidden) with every constant."""
    embeddings = tower.vision_model.embeddings
    kernel, bias = fold_pixels(embeddings.patch_embedding, offset=CENTRE, scale=SPAN)
    flat = kernel.float().permute(0, 2, 3, 1).flatten(1)  # as tiles lie in memory
    weight = flat.new_zeros((len(flat), PIXELS))
    weight[:, : flat.shape[1]] = flat
    positions = embeddings.positions()[0].float()
    patches = positions[1:] + bias.float()
    first = positions[:1] + embeddings.class_embedding[0].float()
    return FusedLinear(weight.to(plan.dtype)), torch.cat((patches, first))
