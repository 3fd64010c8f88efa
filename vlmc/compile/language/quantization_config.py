"""`quantization_config` of a config.json, as compressed-tensors defines it. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vlmc.checkpoint.huggingface import HEAD
from vlmc.checkpoint.quantization import Quantization


def stored_config(quantization: Quantization) -> dict[str, Any]:
    """The `quantization_config` of an artifact whose checkpoint was already quantized."""
    keep = [name for name in quantization.ignore if name != HEAD]
    if quantization.scheme == "fp8":
        return fp8_config(keep)
    return w4a16_config(quantization.group_size, quantization.symmetric, keep)


def w4a16_config(group_size: int | None, symmetric: bool, keep: Iterable[str]) -> dict[str, Any]:
    """4-bit weights with groups along the inputs.

    Args:
        group_size: inputs per group, or None for per-channel scales.
        symmetric: whether zero points are omitted.
        keep: linears to keep in 16 bits.
    """
    weights = {
        # GPTQ's processing order does not change the stored groups.
        "actorder": None,
        "block_structure": None,
        "dynamic": False,
        "group_size": group_size,
        "num_bits": 4,
        "strategy": "channel" if group_size is None else "group",
        "symmetric": symmetric,
        "type": "int",
    }
    return _config("pack-quantized", weights, None, keep)


def fp8_config(keep: Iterable[str]) -> dict[str, Any]:
    """E4M3 weights with per-channel scales, and activations with dynamic per-token scales."""
    common = {"block_structure": None, "num_bits": 8, "symmetric": True, "type": "float"}
    weights = common | {"dynamic": False, "strategy": "channel"}
    activations = common | {"dynamic": True, "strategy": "token"}
    return _config("float-quantized", weights, activations, keep)


def _config(
    layout: str, weights: dict[str, Any], activations: dict[str, Any] | None, keep: Iterable[str]
) -> dict[str, Any]:
    group = {
        "format": layout,
        "input_activations": activations,
        "output_activations": None,
        "targets": ["Linear"],
        "weights": weights,
    }
    return {
        "config_groups": {"group_0": group},
        "format": layout,
        "global_compression_ratio": None,
        "ignore": [HEAD, *keep],
        "kv_cache_scheme": None,
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
    }
