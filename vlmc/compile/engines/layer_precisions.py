"""Count a TensorRT engine's layers by precision: network layers before fusion, and the products of
the built engine."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

_PRECISIONS = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16", "INT8": "int8", "FP8": "fp8"}
# Layers of shapes and weights, which do not compute.
_DATA_LAYERS = {"CONSTANT", "SHAPE", "SHUFFLE", "SLICE", "CONCATENATION", "GATHER", "IDENTITY"}
_PRODUCTS = {"MATRIX_MULTIPLY", "CONVOLUTION"}
_PASS_THROUGH = {"SHUFFLE", "IDENTITY"}

LAYER_LIST = "Layers:\nName: "
"""Start of the log message in which TensorRT-RTX lists an engine's layers. The engine inspector
needs a driver."""
_ENGINE_LAYER = re.compile(
    r"^Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>.*?)\], "
    r"Constants: \[(?P<constants>.*?)\], Outputs:",
    re.MULTILINE,
)
_TENSOR = re.compile(r"Dimensions: \[(?P<sizes>[^\]]*)\].*?Datatype: (?P<dtype>\w+)")
_ENGINE_PRODUCTS = {"gemm", "runtime_fusion", "correlation"}
_ATTENTION = "_gemm_mha"
_ENGINE_PRECISIONS = {
    "Float": "fp32",
    "Half": "fp16",
    "BFloat16": "bf16",
    "Int8": "int8",
    "FP8": "fp8",
}


def layers_by_precision(network: Any) -> dict[str, dict[str, int]]:
    """Kind of layer → precision → number of layers, for layers that compute with floats.

    The precision of a product is that of its operands: int8 after a DequantizeLinear node.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    producers = {
        layer.get_output(index).name: layer
        for layer in layers
        for index in range(layer.num_outputs)
    }
    counts: dict[str, Counter[str]] = {}
    for layer in layers:
        kind, precision = layer.type.name, _precision(layer, producers)
        if kind not in _DATA_LAYERS and precision is not None:
            counts.setdefault(kind.lower(), Counter())[precision] += 1
    return {kind: dict(sorted(counts[kind].items())) for kind in sorted(counts)}


def _precision(layer: Any, producers: dict[str, Any]) -> str | None:
    """The layer's precision, or None if it computes shapes."""
    tensor = layer.get_output(0)
    if layer.type.name in _PRODUCTS:
        tensor = layer.get_input(0)
        producer = producers.get(tensor.name)
        while producer is not None and producer.type.name in _PASS_THROUGH:
            tensor = producer.get_input(0)
            producer = producers.get(tensor.name)
        if producer is not None and producer.type.name == "DEQUANTIZE":
            tensor = producer.get_input(0)
    return _PRECISIONS.get(tensor.dtype.name)


def engine_products(message: str) -> dict[str, int] | None:
    """Precision → number of matrix products in the engine, over all profiles.

    Fused attention counts as one product. A product has the precision of the weight it reads:
    8-bit inputs times a weight that TensorRT-RTX converted to 16 bits count as 16 bits.

    Args:
        message: the log message that starts with `LAYER_LIST`.

    Returns:
        The counts, or None if the format of the message is unknown.
    """
    counts: Counter[str] = Counter()
    for layer in _ENGINE_LAYER.finditer(message):
        if layer["kind"] in _ENGINE_PRODUCTS or layer["name"].startswith(_ATTENTION):
            tensors = _matrices(layer["constants"]) or _matrices(layer["inputs"])
            precisions = {_ENGINE_PRECISIONS.get(dtype, "") for dtype in tensors}
            highest = next((name for name in _ENGINE_PRECISIONS.values() if name in precisions), "")
            counts[highest] += 1
    return None if "" in counts or not counts else dict(sorted(counts.items()))


def _matrices(tensors: str) -> list[str]:
    """Dtypes of tensors with two or more dimensions above one, so no scales and biases."""
    return [
        tensor["dtype"]
        for tensor in _TENSOR.finditer(tensors)
        if sum(size.strip() != "1" for size in tensor["sizes"].split(",")) > 1
    ]
