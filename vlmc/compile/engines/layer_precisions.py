"""What a TensorRT plan computes in which precision: layers as the network's types say before they
are fused, and the products that are in the plan behind them."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

_PRECISIONS = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16", "INT8": "int8", "FP8": "fp8"}
# Shapes and weights, not work.
_NO_WORK = {"CONSTANT", "SHAPE", "SHUFFLE", "SLICE", "CONCATENATION", "GATHER", "IDENTITY"}
_PRODUCTS = {"MATRIX_MULTIPLY", "CONVOLUTION"}
_PASSING_ON = {"SHUFFLE", "IDENTITY"}

LAYERS_TOLD = "Layers:\nName: "
"""How the message begins in which TensorRT-RTX lists a plan's layers, as its inspector would; the
inspector itself opens no plan without a driver."""
_PLANNED = re.compile(
    r"^Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>.*?)\], "
    r"Constants: \[(?P<constants>.*?)\], Outputs:",
    re.MULTILINE,
)
_TENSOR = re.compile(r"Dimensions: \[(?P<sizes>[^\]]*)\].*?Datatype: (?P<dtype>\w+)")
_PLANNED_PRODUCTS = {"gemm", "runtime_fusion", "correlation"}
_ATTENTION = "_gemm_mha"
_PLANNED_PRECISIONS = {
    "Float": "fp32",
    "Half": "fp16",
    "BFloat16": "bf16",
    "Int8": "int8",
    "FP8": "fp8",
}


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


def planned_products(message: str) -> dict[str, int] | None:
    """Precision → number of products in the plan, of all profiles together, attention's as one.

    `message` is the one that begins with `LAYERS_TOLD`. A product is in the precision of the
    weight that it reads: where TensorRT-RTX multiplies 8-bit inputs by a weight that it has
    brought to 16 bits before, it counts as 16 bits. None where a layer is not told as it used to
    be.
    """
    counts: Counter[str] = Counter()
    for layer in _PLANNED.finditer(message):
        if layer["kind"] in _PLANNED_PRODUCTS or layer["name"].startswith(_ATTENTION):
            tensors = _matrices(layer["constants"]) or _matrices(layer["inputs"])
            precisions = {_PLANNED_PRECISIONS.get(dtype, "") for dtype in tensors}
            widest = next((name for name in _PLANNED_PRECISIONS.values() if name in precisions), "")
            counts[widest] += 1
    return None if "" in counts or not counts else dict(sorted(counts.items()))


def _matrices(tensors: str) -> list[str]:
    """Types of those that have at least two dimensions above one, which a scale or bias has not."""
    return [
        tensor["dtype"]
        for tensor in _TENSOR.finditer(tensors)
        if sum(size.strip() != "1" for size in tensor["sizes"].split(",")) > 1
    ]
