"""Where a measurement was made."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from vlmc.machine.gpu import driver_version, gpu_of
from vlmc.runtime.engines.self_test import machine_name
from vlmc.version import __version__

_PACKAGES = (
    "numpy",
    "opencv-python-headless",
    "pillow",
    "onnxruntime",
    "onnxruntime-gpu",
    "triton",
    "humming-kernels",
    "tensorrt",
    "tensorrt-rtx-cu13",
)


def environment(device: torch.device) -> dict[str, Any]:
    """GPU, driver, CPU, cores and versions."""
    gpu = gpu_of(device.index or 0) if device.type == "cuda" else None
    return {
        "gpu": None if gpu is None else {"name": gpu.name, "target": gpu.target},
        "gpu_memory_bytes": None if gpu is None else gpu.memory_bytes,
        "driver": driver_version() if gpu is not None else None,
        "cpu": machine_name(torch.device("cpu")),
        "cores": len(os.sched_getaffinity(0)),
        "torch_threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "vlmc": __version__,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
