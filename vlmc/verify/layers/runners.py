"""Polygraphy's runners for a marked graph, on ONNX Runtime and on TensorRT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from polygraphy.backend.onnxrt import OnnxrtRunner

from vlmc.machine.polygraphy_trt import bind, builder_config, missing
from vlmc.machine.support import EngineName, Precision
from vlmc.runtime.engines.onnxruntime_engine import open_session

COMPARED: tuple[EngineName, ...] = ("onnxruntime", "tensorrt", "tensorrt-rtx")
"""Engines whose inner tensors can be read."""


def skip_reason(engine: EngineName, precision: Precision) -> str | None:
    """Why the engine cannot run a graph of this precision here; None if it can."""
    return None if engine == "onnxruntime" else missing(engine, precision)


def make_runner(engine: EngineName, graph: Path, precision: Precision, name: str) -> Any:
    """A runner for a marked graph, which opens its session or builds its engine when activated.

    Args:
        engine: one of `COMPARED`.
        graph: the marked graph.
        precision: the precision of the graph.
        name: what Polygraphy calls the runner in its results.
    """
    if engine == "onnxruntime":
        return OnnxrtRunner(lambda: open_session(graph, precision), name=name)
    trt = bind(engine)
    return trt.TrtRunner(plan_loader(trt.EngineFromNetwork, engine, trt, graph), name=name)


def plan_loader(loader: Any, engine: EngineName, trt: Any, graph: Path) -> Any:
    """One of Polygraphy's loaders that build, for a marked graph."""
    network = trt.NetworkFromOnnxPath(str(graph), strongly_typed=True)
    return loader(network, builder_config(engine, trt))
