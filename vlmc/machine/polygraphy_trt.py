"""Polygraphy's loaders and runners for TensorRT and TensorRT-RTX.

vlmc compares layers and inspects plans with them. It builds and runs plans by its own code:
Polygraphy's loaders leave TF32 on in TensorRT-RTX, write their log to one logger for the whole
process, from which vlmc reads memory and layers on machines without a GPU, and bind one of the two
packages for the whole process; its runner copies features to the host.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch

from vlmc.errors import HardwareError
from vlmc.machine.gpu import gpu_of
from vlmc.machine.packages import PACKAGES
from vlmc.machine.support import EngineName, Precision, refusal


def missing(engine: EngineName, precision: Precision) -> str | None:
    """Why TensorRT or TensorRT-RTX cannot run this precision here; None if it can."""
    package = PACKAGES[engine]
    if package.version is None:
        return f"{package.module} is not installed: {package.install}"
    try:
        importlib.import_module(package.module)
    except ImportError as error:
        return f"{package.module} cannot be imported ({error})"
    if not torch.cuda.is_available():
        return "torch finds no GPU"
    return refusal(engine, precision, gpu_of(torch.cuda.current_device()).target)  # type: ignore[arg-type]


def bind(engine: EngineName) -> Any:
    """The module `polygraphy.backend.trt`, bound to the engine's package.

    Raises:
        HardwareError: it is already bound to the other package, which cannot be changed.
    """
    from polygraphy import config

    use_rtx = engine == "tensorrt-rtx"
    config.USE_TENSORRT_RTX = use_rtx
    from polygraphy.backend import trt

    bound = trt.util.trt.__name__
    if bound != PACKAGES[engine].module:
        config.USE_TENSORRT_RTX = not use_rtx
        raise HardwareError(
            f"Polygraphy works with {bound} in this process and cannot change to {engine}. "
            f"Use one engine at a time, with --engine {engine}."
        )
    return trt


def builder_config(engine: EngineName, trt: Any) -> Any:
    """Settings to build for this machine's GPU, from a graph of fixed shapes, without TF32."""
    if engine == "tensorrt-rtx":
        from polygraphy.backend.tensorrt_rtx import CreateConfigRTX

        # Building for the current GPU needs one.
        config = CreateConfigRTX(use_gpu=torch.cuda.is_available())
    else:
        config = trt.CreateConfig()
    flag = importlib.import_module(PACKAGES[engine].module).BuilderFlag.TF32
    return trt.PostprocessConfig(config, lambda builder, network, config: config.clear_flag(flag))


def inspect_plan(engine: EngineName, plan: Path) -> str:
    """The layers of a plan, as the engine inspector reports them.

    The plan is native code: check its hash first.

    Raises:
        HardwareError: it cannot be loaded here.
    """
    trt = bind(engine)
    from polygraphy.exception import PolygraphyException
    from polygraphy.logger import G_LOGGER

    try:
        with G_LOGGER.verbosity(G_LOGGER.CRITICAL):
            loaded = trt.EngineFromBytes(plan.read_bytes())()
            context = loaded.create_execution_context()
            return str(trt.util.str_from_engine(loaded, context, show_layers=True))
    except PolygraphyException as error:
        raise HardwareError(
            f"{engine} cannot load {plan} here: {error}. Inspect it on a machine with the target's "
            "GPU and the package's version that `vlmc inspect` shows."
        ) from error
