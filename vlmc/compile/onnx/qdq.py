"""Insert standard QuantizeLinear and DequantizeLinear nodes into a typed graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vlmc.compile.onnx.grids import Grid
from vlmc.compile.onnx.typed_tower import TypedTower
from vlmc.models.vision.calibration_ranges import Ranges

if TYPE_CHECKING:
    import onnx_ir


def quantize_graph(
    model: onnx_ir.Model, tower: TypedTower, ranges: Ranges, grid: Grid
) -> tuple[str, ...]:
    """Quantize the linears of `ranges` except `keep_16bit`, in place.

    Inputs pass QuantizeLinear and DequantizeLinear with a per-tensor scale. Weights are stored
    quantized and pass DequantizeLinear with per-channel scales (axis 1 of (inputs, outputs)). Zero
    points are zero. Scales have the dtype that the graph computes in.

    Args:
        model: the graph.
        tower: the same tower in fp32, from which weights are quantized.
        ranges: calibration ranges.
        grid: the 8-bit grid.

    Returns:
        Names of the quantized linears.
    """
    import onnx_ir

    weights = {f"{name}.weight": name for name in ranges.linears if name not in ranges.keep_16bit}
    for node in tuple(model.graph):
        name = weights.pop(_weight_of(node), None)
        if name is None:
            continue
        clip = ranges.linears[name].clip
        if clip is None:
            raise ValueError(f"{name} was not calibrated for 8 bits")
        half = model.graph.initializers[f"{name}.weight"].dtype == onnx_ir.DataType.FLOAT16
        compute = torch.float16 if half else torch.float32
        _quantize_linear(model, node, name, tower, grid, clip, compute)
    if weights:
        raise ValueError(f"the graph has no product with {', '.join(weights)}")
    return tuple(name for name in ranges.linears if name not in ranges.keep_16bit)


def _weight_of(node: onnx_ir.Node) -> str:
    second = node.inputs[1] if node.op_type == "MatMul" else None
    return (second.name or "") if second is not None else ""


def _quantize_linear(
    model: onnx_ir.Model,
    node: onnx_ir.Node,
    name: str,
    tower: TypedTower,
    grid: Grid,
    clip: float,
    compute: torch.dtype,
) -> None:
    import onnx_ir

    weight = tower.get_parameter(f"{name}.weight").T.float()  # (outputs, inputs)
    weight_scale = grid.weight_scale(weight, compute)
    stored = grid.store(weight, weight_scale).T.contiguous()
    given = node.inputs[0]
    scale = _initializer(model, f"{name}.input_scale", grid.activation_scale(clip, compute))
    zero = _initializer(model, f"{name}.zero_point", torch.zeros((), dtype=grid.dtype))
    on_grid = onnx_ir.node("QuantizeLinear", [given, scale, zero], name=f"{name}.quantize")
    back = onnx_ir.node(
        "DequantizeLinear", [on_grid.outputs[0], scale, zero], name=f"{name}.dequantize"
    )
    model.graph.initializers.pop(f"{name}.weight")
    weights = onnx_ir.node(
        "DequantizeLinear",
        [
            _initializer(model, f"{name}.weight", stored),
            _initializer(model, f"{name}.weight_scale", weight_scale.flatten()),
            _initializer(
                model, f"{name}.weight_zero_point", torch.zeros(len(weight), dtype=grid.dtype)
            ),
        ],
        {"axis": 1},
        name=f"{name}.dequantize_weight",
    )
    for added, suffix in ((on_grid, "on_grid"), (back, "dequantized"), (weights, "real_weight")):
        added.outputs[0].name = f"{name}.{suffix}"
    model.graph.insert_before(node, (on_grid, back, weights))
    node.replace_input_with(0, back.outputs[0])
    node.replace_input_with(1, weights.outputs[0])


def _initializer(model: onnx_ir.Model, name: str, values: Tensor) -> onnx_ir.Value:
    import onnx_ir
    from onnx_ir.tensor_adapters import TorchTensor

    tensor = TorchTensor(values, name=name)
    value = onnx_ir.Value(
        name=name, shape=tensor.shape, type=onnx_ir.TensorType(tensor.dtype), const_value=tensor
    )
    model.graph.register_initializer(value)
    return value
