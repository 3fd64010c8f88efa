"""Compute a bf16 graph in fp32, rounded to bf16 after every node, where bf16 has no kernels."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_BF16 = TensorProto.BFLOAT16


def emulate_bf16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with fp32 tensors in place of bf16 ones, as tensor cores compute.

    They multiply bf16 values, sum in fp32, and round the sum. Weights must be in `model` itself.
    """
    graph = model.graph
    rounded = {
        value.name
        for value in (*graph.value_info, *graph.output)
        if value.type.tensor_type.elem_type == _BF16
    }
    for value in graph.initializer:
        if value.data_type == _BF16:
            values = numpy_helper.to_array(value).astype(np.float32)
            value.CopyFrom(numpy_helper.from_array(values, value.name))
    nodes = []
    for node in graph.node:
        nodes.append(node)
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == _BF16:
                attribute.i = TensorProto.FLOAT
        for index, output in enumerate(node.output):
            if output in rounded:
                exact, short = f"{output} before rounding", f"{output} in bf16"
                node.output[index] = exact
                nodes += [
                    helper.make_node("Cast", [exact], [short], to=_BF16),
                    helper.make_node("Cast", [short], [output], to=TensorProto.FLOAT),
                ]
    del graph.node[:]
    graph.node.extend(nodes)
    for value in (*graph.value_info, *graph.output):
        if value.type.tensor_type.elem_type == _BF16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return model
