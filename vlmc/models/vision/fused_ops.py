"""Custom operations of the fused tower: Triton kernels on CUDA, plain torch elsewhere."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.library import triton_op, wrap_triton
from torch.nn import functional

from vlmc.models.linears.e4m3 import E4M3_MAX

PATCHES = 1024  # per tile, without the class token
FP8 = torch.float8_e4m3fn


def quantize(states: Tensor, scale: Tensor) -> Tensor:
    """`states / scale` in fp8 (E4M3), saturated; `scale` is an fp32 scalar."""
    return (states.float() / scale).clamp(-E4M3_MAX, E4M3_MAX).to(FP8)


@triton_op("vlmc::attend", mutates_args=())
def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: Tensor | None,
    heads: int,
) -> Tensor:
    """Attention within each tile. Rows hold the patches of all tiles, then all class tokens.

    Args:
        query, key, value: (1025 · tiles, hidden) each, with any row stride.
        scale: fp32 scalar to quantize the result to fp8, or None.

    Returns:
        (1025 · tiles, hidden) in the inputs' dtype, or fp8.
    """
    if not query.is_cuda:
        mixed = _attend_plain(query, key, value, heads)
        return mixed if scale is None else quantize(mixed, scale)

    from vlmc.models.vision.tower_kernels import attend_kernel

    rows, hidden = query.shape
    head_dim, tiles = hidden // heads, rows // (PATCHES + 1)
    out = torch.empty(
        (rows, hidden), dtype=query.dtype if scale is None else FP8, device=query.device
    )
    block_q, block_k = 64, 128 if head_dim <= 64 else 64
    if query.dtype == torch.float32:
        block_k = 32  # fp32 uses no tensor cores and needs more registers
    wrap_triton(attend_kernel)[(PATCHES // block_q + 1, tiles * heads)](
        query,
        key,
        value,
        query if scale is None else scale,
        out,
        tiles * PATCHES,
        query.stride(0),
        key.stride(0),
        value.stride(0),
        HEADS=heads,
        HEAD_DIM=head_dim,
        PATCHES=PATCHES,
        SOFTMAX_SCALE=math.log2(math.e) / math.sqrt(head_dim),
        QUANTIZE=scale is not None,
        BLOCK_Q=block_q,
        BLOCK_K=block_k,
        num_warps=4,
        num_stages=2,
    )
    return out


@triton_op("vlmc::linear_gelu", mutates_args=())
def linear_gelu(
    states: Tensor,
    weight: Tensor,
    input_scale: Tensor,
    weight_scale: Tensor,
    bias: Tensor,
    scale: Tensor,
) -> Tensor:
    """GELU of an fp8 linear, requantized to fp8.

    Args:
        states: fp8 (rows, inputs).
        weight: fp8 (outputs, inputs).
        input_scale, weight_scale: fp32 scalars of the two operands.
        bias: fp32 (outputs).
        scale: fp32 scalar of the result.

    Returns:
        fp8 (rows, outputs).
    """
    if not states.is_cuda:
        product = states.float() @ weight.float().T * (input_scale * weight_scale)
        return quantize(functional.gelu(product + bias), scale)

    from vlmc.models.vision.tower_kernels import linear_gelu_kernel

    (rows, inputs), outputs = states.shape, weight.shape[0]
    out = torch.empty((rows, outputs), dtype=FP8, device=states.device)
    block_m, block_n, block_k = 128, 256, 128
    blocks = ((rows + block_m - 1) // block_m) * ((outputs + block_n - 1) // block_n)
    wrap_triton(linear_gelu_kernel)[(blocks,)](
        states,
        weight,
        input_scale,
        weight_scale,
        bias,
        scale,
        out,
        rows,
        outputs,
        inputs,
        BLOCK_M=block_m,
        BLOCK_N=block_n,
        BLOCK_K=block_k,
        GROUP=8,
        WHOLE=outputs % block_n == 0 and inputs % block_k == 0,
        num_warps=8,
        num_stages=3,
    )
    return out


torch.library.define("vlmc::add_product", "(Tensor(a!) states, Tensor inputs, Tensor weight) -> ()")


@torch.library.impl("vlmc::add_product", "default")
def _add_product(states: Tensor, inputs: Tensor, weight: Tensor) -> None:
    states.addmm_(inputs, weight.T)


@torch.library.register_fake("vlmc::add_product")  # type: ignore[untyped-decorator]
def _add_product_fake(states: Tensor, inputs: Tensor, weight: Tensor) -> None:
    pass


def add_product(states: Tensor, inputs: Tensor, weight: Tensor) -> None:
    """Add `inputs` (rows, inputs) · `weight` (outputs, inputs)ᵀ to `states` (rows, outputs).

    Works in place, with a single rounding; all tensors have the same dtype. This is a custom
    operation because torch.compile functionalizes `addmm_`, which copies `states`.
    """
    torch.ops.vlmc.add_product(states, inputs, weight)


@triton_op("vlmc::add_norm", mutates_args=())
def add_norm(
    states: Tensor,
    mixed: Tensor,
    gain: Tensor,
    bias: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor | None,
    eps: float,
    scale: Tensor | None,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Residual addition `states + mixed · gain + bias`, and its norm.

    Args:
        states: (rows, hidden), the residual stream.
        mixed: (rows, hidden), the output of the branch.
        gain, bias: fp32 (hidden).
        norm_weight: fp32 (hidden).
        norm_bias: fp32 (hidden) for LayerNorm, None for RMSNorm.
        scale: fp32 scalar to quantize the norm to fp8, or None.
        dtype: dtype of the norm if `scale` is None.

    Returns:
        The sum in the dtype of `states`, and the norm of the unrounded sum.
    """
    if not states.is_cuda:
        added = states.float() + mixed.float() * gain + bias
        normed = normalize(added, norm_weight, norm_bias, eps)
        normed = normed.to(dtype) if scale is None else quantize(normed, scale)
        return added.to(states.dtype), normed

    from vlmc.models.vision.tower_kernels import add_norm_kernel

    rows, hidden = states.shape
    added = torch.empty_like(states)
    normed = torch.empty(
        (rows, hidden), dtype=dtype if scale is None else FP8, device=states.device
    )
    wrap_triton(add_norm_kernel)[(rows,)](
        states,
        mixed,
        gain,
        bias,
        norm_weight,
        norm_weight if norm_bias is None else norm_bias,
        norm_weight if scale is None else scale,
        added,
        normed,
        HIDDEN=hidden,
        EPS=eps,
        CENTRED=norm_bias is not None,
        QUANTIZE=scale is not None,
        BLOCK=1 << (hidden - 1).bit_length(),
        num_warps=4 if hidden <= 1024 else 8,
    )
    return added, normed


def normalize(states: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """LayerNorm of fp32 `states` over the last dimension, or RMSNorm if `bias` is None."""
    if bias is not None:
        return functional.layer_norm(states, (states.shape[-1],), weight, bias, eps)
    squares = states.pow(2).mean(-1, keepdim=True)
    return states * torch.rsqrt(squares + eps) * weight


def _attend_plain(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    tiles = query.shape[0] // (PATCHES + 1)

    def split(states: Tensor) -> Tensor:
        """(1025 · tiles, hidden) → (tiles, heads, 1025, head_dim), the class token last."""
        patches = states[: tiles * PATCHES].reshape(tiles, PATCHES, -1)
        whole = torch.cat((patches, states[tiles * PATCHES :].unsqueeze(1)), dim=1)
        return whole.view(tiles, PATCHES + 1, heads, -1).transpose(1, 2)

    mixed = functional.scaled_dot_product_attention(split(query), split(key), split(value))
    mixed = mixed.transpose(1, 2).flatten(2)
    return torch.cat((mixed[:, :PATCHES].flatten(0, 1), mixed[:, PATCHES]))
