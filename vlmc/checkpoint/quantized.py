"""Linears of an original checkpoint that are quantized already: which, and in which tensors.

config.json names the layout. A linear is quantized if the files hold its packed words. Writers list
what they leave in 16 bits by the whole model's names or by the language model's own names, so the
list alone is ambiguous, and the files decide.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from vlmc.checkpoint.quantization import Quantization
from vlmc.checkpoint.weights import Weights
from vlmc.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

Expected = tuple[tuple[int, ...], tuple[str, ...]]
"""A tensor's shape, and the dtypes that it may have, as safetensors names them."""

FLOAT_DTYPES = ("BF16", "F16", "F32")
WORD_KINDS = ("qweight", "weight_packed")
_FP8_DTYPE = "F8_E4M3"
_INTEGERS = ("I32",)
_PER_WORD = 8
_BYTES = {"BF16": 2, "F16": 2, "F32": 4, _FP8_DTYPE: 1, "I32": 4, "I64": 8}
_PART_KINDS = (
    *("qweight", "qzeros", "scales", "g_idx", "bias", "weight", "weight_packed"),
    *("weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx"),
)


def words_name(linear: str, quantization: Quantization) -> str:
    """The tensor of a linear's packed integers, or of its fp8 values."""
    kind = {"w4a16": "weight_packed", "fp8": "weight"}.get(quantization.layout, "qweight")
    return f"{linear}.{kind}"


def is_quantized(weights: Weights, linear: str, quantization: Quantization) -> bool:
    """Whether `linear`, such as `language_model.model.layers.0.attention.wo`, is quantized."""
    name = words_name(linear, quantization)
    if name not in weights:
        return False
    return quantization.layout != "fp8" or weights.dtypes(name) == {_FP8_DTYPE}


def part_names(weights: Weights, linear: str) -> list[str]:
    """All tensors of a linear that the files hold, its bias among them."""
    return [f"{linear}.{kind}" for kind in _PART_KINDS if f"{linear}.{kind}" in weights]


def compressed_bytes(weights: Weights, linear: str, quantization: Quantization) -> int:
    """Size of a quantized linear in compressed-tensors' layout, by the headers."""
    dropped = {"g_idx", "weight_g_idx"} | ({"qzeros"} if quantization.symmetric else set())
    return sum(
        math.prod(weights.shape(name)) * max(_BYTES[dtype] for dtype in weights.dtypes(name))
        for name in part_names(weights, linear)
        if name.rpartition(".")[2] not in dropped
    )


def expected_parts(
    weights: Weights, linear: str, quantization: Quantization, shape: tuple[int, int], unit: int
) -> dict[str, Expected]:
    """Shapes and dtypes of a quantized linear's tensors by whole name, optional ones if present.

    Args:
        shape: outputs and inputs.
        unit: the fewest outputs that become a linear of their own.

    Raises:
        CheckpointError: its sizes do not fit the layout, or a tensor is missing.
    """
    words = words_name(linear, quantization)
    where = f"{weights.file(words)}: {linear}"
    parts = _parts(quantization, where, shape, unit)
    for kind in parts:
        if f"{linear}.{kind}" not in weights:
            raise CheckpointError(
                f"{where} has no {kind} beside its {words.rpartition('.')[2]}, and cannot be read "
                "without. The download is incomplete, or quantization_config in config.json "
                "names another layout."
            )
    order = {"w4a16": "weight_g_idx", "gptq": "g_idx", "gptq_v2": "g_idx"}.get(quantization.layout)
    if order is not None and f"{linear}.{order}" in weights:
        parts[order] = (shape[1:], _INTEGERS)
    return {f"{linear}.{kind}": expected for kind, expected in parts.items()}


def _parts(
    quantization: Quantization, where: str, shape: tuple[int, int], unit: int
) -> dict[str, Expected]:
    outputs, inputs = shape
    if quantization.layout == "fp8":
        return {"weight": (shape, (_FP8_DTYPE,)), "weight_scale": ((outputs, 1), FLOAT_DTYPES)}
    size = quantization.group_size or inputs
    if inputs % size or inputs % _PER_WORD:
        raise CheckpointError(
            f"{where} has {inputs} inputs, which the groups of {size} of config.json's "
            "quantization_config do not divide"
        )
    if unit % _PER_WORD:
        raise CheckpointError(
            f"{where} comes apart into linears of {unit} outputs, which do not fill words of eight "
            "zero points"
        )
    groups, words, columns = inputs // size, inputs // _PER_WORD, outputs // _PER_WORD
    parts: dict[str, Expected]
    match quantization.layout:
        case "w4a16":
            parts = {
                "weight_packed": ((outputs, words), _INTEGERS),
                "weight_scale": ((outputs, groups), FLOAT_DTYPES),
                "weight_shape": ((2,), ("I64", "I32")),
            }
            if not quantization.symmetric:
                parts["weight_zero_point"] = ((columns, groups), _INTEGERS)
            return parts
        case "awq":
            parts = {"qweight": ((inputs, columns), _INTEGERS)}
        case _:
            parts = {"qweight": ((words, outputs), _INTEGERS)}
            if quantization.act_order:
                parts["g_idx"] = ((inputs,), _INTEGERS)
    parts["qzeros"] = ((groups, columns), _INTEGERS)
    parts["scales"] = ((groups, outputs), FLOAT_DTYPES)
    return parts


def read_quantized(weights: Weights, linear: str, quantization: Quantization) -> dict[str, Tensor]:
    """A quantized linear in compressed-tensors' layout, by the last names of its tensors: the same
    integers or fp8 values, zero points and scales.

    Raises:
        CheckpointError: scales or values are not finite, or its inputs are reordered (act-order).
    """
    from vlmc.checkpoint import packed

    parts = {name.rpartition(".")[2]: weights.tensor(name) for name in part_names(weights, linear)}
    name = f"{weights.file(words_name(linear, quantization))}: {linear}"
    symmetric = quantization.symmetric
    match quantization.layout:
        case "awq":
            return packed.awq_to_compressed(parts, name=name)
        case "gptq":
            return packed.gptq_to_compressed(parts, version=1, symmetric=symmetric, name=name)
        case "gptq_v2":
            return packed.gptq_to_compressed(parts, version=2, symmetric=symmetric, name=name)
        case "w4a16":
            packed.check_compressed(parts, name=name)
            parts.pop("weight_g_idx", None)
            return parts
        case "fp8":
            return parts
