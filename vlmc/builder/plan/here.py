"""What this machine can do of a build: the GPU that calibrates, and the steps that cannot run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vlmc.builder.steps.step import Step
from vlmc.errors import VlmcError
from vlmc.machine.aoti_environment import torch_cuda
from vlmc.machine.gpu import Gpu, gpu_is_there, gpus

_FP32_BYTES = 4
# Two copies of the fp32 tower, and the most that calibration asks for beside them.
_COPIES, _WORKING_BYTES = 2, 8 << 30


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A step that this machine cannot run, and why."""

    step: str
    reason: str


def obstacles(steps: Iterable[Step]) -> tuple[Obstacle, ...]:
    """The steps whose own check fails here, as a build would find before its first step."""
    found = []
    for step in steps:
        try:
            step.check()
        except VlmcError as error:
            found.append(Obstacle(step.name, str(error)))
    return tuple(found)


def calibration_gpu(tower_parameters: int) -> Gpu | None:
    """The GPU that calibration runs on; None where that is the CPU. Imports torch only where
    there is a GPU and no NVML."""
    if not gpu_is_there() or torch_cuda() == "none":
        return None
    needed = _COPIES * _FP32_BYTES * tower_parameters + _WORKING_BYTES
    return next((gpu for gpu in gpus()[:1] if gpu.memory_bytes >= needed), None)
