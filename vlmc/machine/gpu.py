"""The NVIDIA GPUs of this machine, as reported by the driver."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

_DEVICES = Path("/dev")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU; `target` is its compute capability as in recipes, such as sm89."""

    name: str
    target: str
    memory_bytes: int


def gpu_is_there() -> bool:
    """Whether the machine has a GPU that CUDA_VISIBLE_DEVICES does not hide.

    This does not use torch, because a CPU build of torch sees no GPUs.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return False
    return any(path.name[6:].isdigit() for path in _DEVICES.glob("nvidia*"))


def gpus() -> tuple[Gpu, ...]:
    """All GPUs, from NVML if its package is installed, otherwise from torch."""
    if find_spec("pynvml") is None:
        return _by_torch()
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        handles = [
            pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())
        ]
        return tuple(
            Gpu(
                str(pynvml.nvmlDeviceGetName(handle)),
                _target(pynvml.nvmlDeviceGetCudaComputeCapability(handle)),
                int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
            )
            for handle in handles
        )
    finally:
        pynvml.nvmlShutdown()


def gpu_of(index: int) -> Gpu:
    """The GPU that torch calls `cuda:<index>`."""
    import torch

    properties = torch.cuda.get_device_properties(index)
    return Gpu(
        properties.name, _target((properties.major, properties.minor)), properties.total_memory
    )


def driver_version() -> str | None:
    """Version of the NVIDIA driver, such as 580.95.05, or None if it is not known."""
    if find_spec("pynvml") is None:
        return _driver_by_kernel()
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        return str(pynvml.nvmlSystemGetDriverVersion())
    finally:
        pynvml.nvmlShutdown()


def _driver_by_kernel() -> str | None:
    try:
        return Path("/sys/module/nvidia/version").read_text(encoding="ascii").strip()
    except OSError:
        return None


def _by_torch() -> tuple[Gpu, ...]:
    import torch

    if not torch.cuda.is_available():
        return ()
    return tuple(gpu_of(index) for index in range(torch.cuda.device_count()))


def _target(capability: tuple[int, int]) -> str:
    major, minor = capability
    return f"sm{major}{minor}"
