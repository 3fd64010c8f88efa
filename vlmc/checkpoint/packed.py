"""4-bit linears in the layouts of AWQ, GPTQ and compressed-tensors, as re-layouts of one another.

All three hold the same integers q and z in 0..15 with W[o, k] = (q - z) · scale (INTERNVL2
reference, 9.1 to 9.6); they differ in how eight of them make an int32:

- `compressed`: `weight_packed` (out, in/8), `weight_scale` (out, groups), `weight_shape` (2,) and,
  unless symmetric, `weight_zero_point` (out/8, groups) packed along the outputs. Its readers take
  8 off q and z both, which leaves their difference.
- `awq` (GEMM): `qweight` (in, out/8), `qzeros` (groups, out/8), `scales` (groups, out); the eight
  the outputs in a word are in the order 0 2 4 6 1 3 5 7.
- `gptq`: `qweight` (in/8, out) packed along the inputs, `qzeros` (groups, out/8), `scales`, and
  `g_idx` (in,). Version 1 stores z - 1, wrapped to four bits; version 2 stores z.

Functions take and return the tensors of one linear by their last name, `bias` carried through.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from vlmc.checkpoint.quantization import PER_WORD
from vlmc.errors import CheckpointError

Tensors = Mapping[str, Tensor]
GptqVersion = Literal[1, 2]

SYMMETRIC_ZERO = 8
COMPRESSED_KINDS = ("weight_packed", "weight_scale", "weight_zero_point", "weight_shape")
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
_AWQ_INVERSE = (0, 4, 1, 5, 2, 6, 3, 7)
_FP16_LARGEST = torch.finfo(torch.float16).max


def unpack(words: Tensor) -> Tensor:
    """int32 (rows, columns) → uint8 0..15 (rows, 8 · columns), the lowest four bits first."""
    pairs = words.contiguous().view(torch.uint8)
    return torch.stack((pairs & 15, pairs >> 4), dim=-1).flatten(-2)


def pack(nibbles: Tensor) -> Tensor:
    """uint8 0..15 (rows, 8 · columns) → int32 (rows, columns); the inverse of `unpack`."""
    pairs = nibbles.reshape(*nibbles.shape[:-1], -1, 2)
    packed: Tensor = pairs[..., 0] | pairs[..., 1] << 4
    return packed.contiguous().view(torch.int32)


def awq_to_compressed(linear: Tensors, *, name: str = "the linear") -> dict[str, Tensor]:
    """`qweight`, `qzeros`, `scales` of AWQ's GEMM layout in that of compressed-tensors, asymmetric.

    Raises:
        CheckpointError: a tensor is missing or of another shape or dtype than the others imply.
    """
    qweight, qzeros, scales = _take(linear, ("qweight", "qzeros", "scales"), name)
    inputs, words = qweight.shape
    groups = _groups(scales, inputs, PER_WORD * words, name)
    _expect(qzeros, (groups, words), f"{name}.qzeros")
    return _compressed(
        _reorder(unpack(qweight), _AWQ_INVERSE).T,
        _reorder(unpack(qzeros), _AWQ_INVERSE).T,
        scales,
        linear,
    )


def gptq_to_compressed(
    linear: Tensors, *, version: GptqVersion, symmetric: bool, name: str = "the linear"
) -> dict[str, Tensor]:
    """`qweight`, `qzeros`, `scales` and, if there, `g_idx` of GPTQ in compressed-tensors' layout.

    Args:
        version: 1 where the checkpoint's format is `gptq`, 2 where it is `gptq_v2`.
        symmetric: every zero point is 8 (the checkpoint's `sym`), and none is returned.

    Raises:
        CheckpointError: a tensor is missing or of another shape or dtype than the others imply,
            `g_idx` reorders the inputs (act-order), or a zero point of a symmetric linear is not 8.
    """
    qweight, qzeros, scales = _take(linear, ("qweight", "qzeros", "scales"), name)
    inputs, outputs = PER_WORD * qweight.shape[0], qweight.shape[1]
    groups = _groups(scales, inputs, outputs, name)
    if outputs % PER_WORD:
        raise CheckpointError(f"{name}.qweight has {outputs} outputs, which is not a multiple of 8")
    _expect(qzeros, (groups, outputs // PER_WORD), f"{name}.qzeros")
    if "g_idx" in linear:
        _check_order(linear["g_idx"], inputs, groups, f"{name}.g_idx")
    zeros = unpack(qzeros)
    if version == 1:
        zeros = zeros + 1 & 15
    if symmetric and bool((zeros != SYMMETRIC_ZERO).any()):
        raise CheckpointError(
            f"{name}.qzeros holds other zero points than {SYMMETRIC_ZERO}, though the checkpoint "
            "says that it is symmetric (sym: true). Its checkpoint_format may be wrong: `gptq` "
            "stores 7 for 8, `gptq_v2` stores 8."
        )
    return _compressed(unpack(qweight.T), None if symmetric else zeros.T, scales, linear)


def compressed_to_awq(linear: Tensors, *, name: str = "the linear") -> dict[str, Tensor]:
    """A linear of compressed-tensors in AWQ's GEMM layout. Its readers expect fp16 scales.

    Raises:
        CheckpointError: a tensor is missing, of another shape or dtype than the others imply, or
            its scales do not fit fp16.
    """
    nibbles, zeros, scales = _parts(linear, name)
    return {
        "qweight": pack(_reorder(nibbles.T, _AWQ_ORDER)),
        "qzeros": pack(_reorder(zeros.T, _AWQ_ORDER)),
        "scales": _half(scales, name),
        **_bias(linear),
    }


def compressed_to_gptq(
    linear: Tensors, *, version: GptqVersion = 1, name: str = "the linear"
) -> dict[str, Tensor]:
    """A linear of compressed-tensors in GPTQ's layout, without act-order; scales become fp16.

    Raises:
        CheckpointError: a tensor is missing, of another shape or dtype than the others imply, or
            its scales do not fit fp16.
    """
    nibbles, zeros, scales = _parts(linear, name)
    inputs, groups = nibbles.shape[1], scales.shape[1]
    stored = zeros - 1 & 15 if version == 1 else zeros
    return {
        "qweight": pack(nibbles).T.contiguous(),
        "qzeros": pack(stored.T),
        "scales": _half(scales, name),
        "g_idx": torch.arange(inputs, dtype=torch.int32) // (inputs // groups),
        **_bias(linear),
    }


def check_compressed(linear: Tensors, *, name: str = "the linear") -> None:
    """Refuse a linear in compressed-tensors' layout that is incomplete; nothing is unpacked.

    Raises:
        CheckpointError: a tensor is missing or of another shape or dtype than the others imply,
            scales are not finite, or `weight_g_idx` reorders the inputs (act-order).
    """
    packed, scales, shape = _take(linear, ("weight_packed", "weight_scale", "weight_shape"), name)
    outputs, inputs = packed.shape[0], PER_WORD * packed.shape[1]
    if shape.tolist() != [outputs, inputs]:
        raise CheckpointError(f"{name}.weight_shape says {shape.tolist()}, not {[outputs, inputs]}")
    groups = _groups(scales.T, inputs, outputs, name)
    if "weight_zero_point" in linear:
        zeros = linear["weight_zero_point"]
        _expect(zeros, (outputs // PER_WORD, groups), f"{name}.weight_zero_point")
    if "weight_g_idx" in linear:
        _check_order(linear["weight_g_idx"], inputs, groups, f"{name}.weight_g_idx")


def split_rows(linear: Tensors, rows: Tensor) -> dict[str, Tensor]:
    """The quantized linear of compressed-tensors that computes only some outputs of another.

    Args:
        linear: in 4 bits, or in fp8.
        rows: (n,) int64, the outputs in their new order; a multiple of eight where there are zero
            points, since those of eight outputs share a word.
    """
    taken: dict[str, Tensor] = {}
    for name, tensor in linear.items():
        if name == "weight_shape":
            taken[name] = torch.tensor([len(rows), int(tensor[1])])
        elif name == "weight_zero_point":
            taken[name] = pack(unpack(tensor.T).T[rows].T).T.contiguous()
        elif tensor.dtype == torch.float8_e4m3fn:  # which torch indexes as bytes alone
            taken[name] = tensor.view(torch.uint8)[rows].view(tensor.dtype)
        else:
            taken[name] = tensor[rows]
    return taken


def split_internlm2(linear: Tensors, kv_heads: int, head_dim: int) -> dict[str, dict[str, Tensor]]:
    """InternLM2's quantized `wqkv` in compressed-tensors' layout as `q_proj`, `k_proj`, `v_proj`.

    Rows of the original: for each key head its query heads, the key, the value.
    """
    rows = torch.arange(len(linear["weight_scale"])).view(kv_heads, -1, head_dim)
    return {
        "q_proj": split_rows(linear, rows[:, :-2].flatten()),
        "k_proj": split_rows(linear, rows[:, -2].flatten()),
        "v_proj": split_rows(linear, rows[:, -1].flatten()),
    }


def _compressed(
    nibbles: Tensor, zeros: Tensor | None, scales: Tensor, linear: Tensors
) -> dict[str, Tensor]:
    """From q (out, in), z (out, groups) or None, and scales (groups, out)."""
    found = {
        "weight_packed": pack(nibbles),
        "weight_scale": scales.T.contiguous(),
        "weight_shape": torch.tensor(nibbles.shape),
        **_bias(linear),
    }
    if zeros is not None:
        found["weight_zero_point"] = pack(zeros.T).T.contiguous()
    return found


def _parts(linear: Tensors, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """q (out, in) and z (out, groups) in 0..15, and scales (out, groups)."""
    packed, scales, shape = _take(linear, ("weight_packed", "weight_scale", "weight_shape"), name)
    outputs, inputs = (int(size) for size in shape)
    _expect(packed, (outputs, inputs // PER_WORD), f"{name}.weight_packed")
    groups = _groups(scales.T, inputs, outputs, name)
    if inputs % PER_WORD or outputs % PER_WORD:
        raise CheckpointError(f"{name} has shape {[outputs, inputs]}, not multiples of 8")
    if "weight_zero_point" not in linear:
        return unpack(packed), torch.full(scales.shape, SYMMETRIC_ZERO, dtype=torch.uint8), scales
    zeros = linear["weight_zero_point"]
    _expect(zeros, (outputs // PER_WORD, groups), f"{name}.weight_zero_point")
    return unpack(packed), unpack(zeros.T).T, scales


def _reorder(nibbles: Tensor, order: tuple[int, ...]) -> Tensor:
    words = nibbles.reshape(*nibbles.shape[:-1], -1, PER_WORD)
    return words[..., list(order)].flatten(-2)


def _half(scales: Tensor, name: str) -> Tensor:
    """Scales (out, groups) as fp16 (groups, out)."""
    largest = float(scales.abs().max())
    if not largest <= _FP16_LARGEST:
        raise CheckpointError(
            f"{name}.weight_scale reaches {largest:g}, which fp16 cannot hold, and this layout "
            "has scales in fp16. Keep the layer in 16 bits (language.keep)."
        )
    return scales.T.to(torch.float16).contiguous()


def _bias(linear: Tensors) -> dict[str, Tensor]:
    return {"bias": linear["bias"]} if "bias" in linear else {}


def _take(linear: Tensors, required: tuple[str, ...], name: str) -> list[Tensor]:
    missing = [part for part in required if part not in linear]
    if missing:
        raise CheckpointError(f"{name} has no {missing[0]}; it holds {', '.join(sorted(linear))}")
    for part in required:
        tensor = linear[part]
        floating = part in ("scales", "weight_scale")
        if part != "weight_shape" and tensor.dim() != 2:
            raise CheckpointError(f"{name}.{part} has shape {list(tensor.shape)}, expected a table")
        if floating != tensor.is_floating_point():
            raise CheckpointError(f"{name}.{part} is {tensor.dtype}, not what this layout holds")
        if floating and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{name}.{part} holds NaN or infinite scales")
    return [linear[part] for part in required]


def _groups(scales: Tensor, inputs: int, outputs: int, name: str) -> int:
    """The number of groups of scales (groups, out)."""
    groups = scales.shape[0]
    _expect(scales, (groups, outputs), f"the scales of {name}, by group and output,", dtype=None)
    if groups == 0 or inputs % groups:
        raise CheckpointError(
            f"{name} has {inputs} inputs and {groups} groups of scales; groups of one size do not "
            "divide it"
        )
    return groups


def _expect(
    tensor: Tensor, shape: tuple[int, ...], what: str, dtype: torch.dtype | None = torch.int32
) -> None:
    if tuple(tensor.shape) != shape:
        raise CheckpointError(f"{what} has shape {list(tensor.shape)}, expected {list(shape)}")
    if dtype is not None and tensor.dtype != dtype:
        raise CheckpointError(f"{what} is {tensor.dtype}, expected {dtype}")


def _check_order(g_idx: Tensor, inputs: int, groups: int, name: str) -> None:
    plain = torch.arange(inputs) // (inputs // groups)
    if g_idx.shape != plain.shape or not torch.equal(g_idx.long().cpu(), plain):
        raise CheckpointError(
            f"{name} assigns inputs to groups in another order than the inputs' own "
            "(act-order, desc_act: true), which compressed-tensors' plain groups cannot hold. "
            "Quantize the model again with desc_act: false, or from the original weights."
        )
