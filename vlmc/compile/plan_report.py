"""Layers of a TensorRT network by kind and precision, as its types say before layers are fused."""

from __future__ import annotations

from collections import Counter
from typing import Any

_PRECISIONS = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16", "INT8": "int8", "FP8": "fp8"}
# Shapes and weights, not work.
_NO_WORK = {"CONSTANT", "SHAPE", "SHUFFLE", "SLICE", "CONCATENATION", "GATHER", "IDENTITY"}
_PRODUCTS = {"MATRIX_MULTIPLY", "CONVOLUTION"}
_PASSING_ON = {"SHUFFLE", "IDENTITY"}


def layers_by_precision(network: Any) -> dict[str, dict[str, int]]:
    """Kind of layer → precision → number of layers, for those that compute with floats.

    The precision of a product is that of what it multiplies: int8 behind a dequantize node.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    makers = {
        layer.get_output(index).name: layer
        for layer in layers
        for index in range(layer.num_outputs)
    }
    counts: dict[str, Counter[str]] = {}
    for layer in layers:
        kind, precision = layer.type.name, _precision(layer, makers)
        if kind not in _NO_WORK and precision is not None:
            counts.setdefault(kind.lower(), Counter())[precision] += 1
    return {kind: dict(sorted(counts[kind].items())) for kind in sorted(counts)}


def _precision(layer: Any, makers: dict[str, Any]) -> str | None:
    """None where the layer computes shapes."""
    tensor = layer.get_output(0)
    if layer.type.name in _PRODUCTS:
        tensor = layer.get_input(0)
        maker = makers.get(tensor.name)
        while maker is not None and maker.type.name in _PASSING_ON:
            tensor = maker.get_input(0)
            maker = makers.get(tensor.name)
        if maker is not None and maker.type.name == "DEQUANTIZE":
            tensor = maker.get_input(0)
    return _PRECISIONS.get(tensor.dtype.name)
