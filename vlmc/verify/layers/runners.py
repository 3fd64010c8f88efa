"""Polygraphy's runners for a marked graph, on ONNX Runtime and on TensorRT."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from polygraphy import config
from polygraphy.backend.onnxrt import OnnxrtRunner

from vlmc.errors import HardwareError
from vlmc.image.tiles import TILE_SIZE
from vlmc.machine.gpu import gpu_of
from vlmc.machine.packages import PACKAGES
from vlmc.machine.support import refusal
from vlmc.runtime.engines.onnxruntime_engine import open_session

COMPARED = ("onnxruntime", "tensorrt", "tensorrt-rtx")
"""Engines whose inner tensors can be read."""


def skip_reason(engine: str, precision: str) -> str | None:
    """Why the engine cannot run a graph of this precision here; None if it can."""
    if engine == "onnxruntime":
        return None
    package = PACKAGES[engine]
    if package.version is None:
        return f"{package.module} is not installed: {package.install}"
    try:
        importlib.import_module(package.module)
    except ImportError as error:
        return f"{package.module} cannot be imported ({error})"
    if not torch.cuda.is_available():
        return "torch finds no GPU"
    target = gpu_of(torch.cuda.current_device()).target
    return refusal(engine, precision, target)  # type: ignore[arg-type]


def make_runner(engine: str, graph: Path, precision: str, name: str) -> Any:
    """A runner for a marked graph, which opens its session or builds its engine when activated.

    Args:
        engine: one of `COMPARED`.
        graph: the marked graph.
        precision: the artifact's vision precision.
        name: what Polygraphy calls the runner in its results.
    """
    if engine != "onnxruntime":
        return _tensorrt_runner(engine, graph, name)
    return OnnxrtRunner(lambda: open_session(graph, precision), name=name)


def _tensorrt_runner(engine: str, graph: Path, name: str) -> Any:
    # Polygraphy binds one of the two packages when this module is first imported.
    use_rtx = engine == "tensorrt-rtx"
    config.USE_TENSORRT_RTX = use_rtx
    from polygraphy.backend import trt

    bound = trt.util.trt.__name__
    if bound != PACKAGES[engine].module:
        raise HardwareError(
            f"Polygraphy compares with {bound} in this process, and cannot change to {engine}. "
            f"Compare them one by one, with --engine {engine}."
        )
    tile = (1, TILE_SIZE, TILE_SIZE, 3)
    profiles = [trt.Profile().add("tiles", tile, tile, tile)]
    network = trt.NetworkFromOnnxPath(str(graph), strongly_typed=True)
    if use_rtx:
        from polygraphy.backend.tensorrt_rtx import CreateConfigRTX

        settings = CreateConfigRTX(use_gpu=True, profiles=profiles)
    else:
        settings = trt.CreateConfig(profiles=profiles)
    return trt.TrtRunner(trt.EngineFromNetwork(network, settings), name=name)
