"""TensorRT-RTX takes the graphs whose tensors are compared; it builds without a GPU."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from tests.verify.layers.graphs import Graphs
from vlmc.errors import HardwareError
from vlmc.machine import polygraphy_trt
from vlmc.machine.polygraphy_trt import bind
from vlmc.verify.layers.marked_graph import GraphCopy
from vlmc.verify.layers.match import match_tensors
from vlmc.verify.layers.runners import plan_loader

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX has wheels for Linux on x86-64 alone")

pytestmark = pytest.mark.xdist_group("verify.layers")


def test_marked_graphs_build_without_tf32(graphs: Graphs, tmp_path: Path) -> None:
    typed = onnx.load(graphs.typed("int8"))
    match = match_tensors(onnx.load(graphs.fp32), typed)
    outputs = {f"compared/{t.name}": t.typed for t in match.tensors if not t.is_parameter}
    copy = GraphCopy(typed, tmp_path / "copy")
    marked = copy.mark(outputs, {})
    trt = bind("tensorrt-rtx")
    builder, network, _ = trt.NetworkFromOnnxPath(str(marked), strongly_typed=True)()
    assert network.num_outputs == len(outputs)
    config = polygraphy_trt.builder_config("tensorrt-rtx", trt)
    flag = trt.util.trt.BuilderFlag.TF32
    assert not config(builder, network).get_flag(flag), "Polygraphy alone leaves it on"
    plan = plan_loader(trt.EngineBytesFromNetwork, "tensorrt-rtx", trt, marked)()
    assert plan.nbytes > 1 << 20
    # A later batch starts from the residual stream.
    residual = next(t.typed for t in match.tensors if t.name.endswith("layers.0/Add.2"))
    last = match.tensors[-1].typed
    assert copy.reads([last], {residual}) == {residual}
    later = copy.mark({"compared/last": last}, {residual: (1, 1025, 32)})
    assert plan_loader(trt.EngineBytesFromNetwork, "tensorrt-rtx", trt, later)().nbytes
    with pytest.raises(HardwareError, match="cannot change to tensorrt"):
        bind("tensorrt")
