"""Which engine of an artifact runs here, and why the others do not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from vlmc.artifact.bundled_graph import bundled_graph
from vlmc.artifact.integrity import Artifact
from vlmc.artifact.manifest import CALIBRATED_PRECISIONS, EngineRecord, Manifest
from vlmc.artifact.vision_files import RANGES, TOWER, payload_name
from vlmc.errors import HardwareError, UsageError
from vlmc.machine.aoti_environment import aoti_environment_of, differences
from vlmc.machine.gpu import gpu_is_there, gpu_of
from vlmc.machine.packages import PACKAGES
from vlmc.runtime.engines.engine import VisionEngine

CPU = torch.device("cpu")
# TensorRT-RTX is for workstation cards.
_DATA_CENTER = ("sm90", "sm100")


@dataclass(frozen=True, slots=True)
class EngineFit:
    """An engine of an artifact, and why it does not run on the device; None where it does."""

    engine: EngineRecord
    reason: str | None


def find_device(text: str) -> torch.device:
    """The device that `load` was asked for: `auto`, `cpu`, `cuda` or `cuda:N`.

    `auto` is the GPU where there is one, and the CPU only where there is none.

    Raises:
        UsageError: the text names no device.
        HardwareError: torch cannot use the GPU.
    """
    if text == "auto":
        text = "cuda" if torch.cuda.is_available() or gpu_is_there() else "cpu"
    try:
        device = torch.device(text)
    except RuntimeError as error:
        raise UsageError(f"device {text!r} is not one of auto, cpu, cuda, cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"device {text!r} is not one of auto, cpu, cuda, cuda:N")
    if device.type == "cpu":
        return CPU
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = (torch.cuda.current_device() if count else 0) if device.index is None else device.index
    if index >= count:
        raise HardwareError(
            f"torch {torch.__version__} sees {count} GPUs, and {text} was asked for. Install a "
            "torch for the driver's CUDA, or run on the CPU with device='cpu' (--device cpu)."
        )
    return torch.device("cuda", index)


def judge(manifest: Manifest, device: torch.device) -> tuple[EngineFit, ...]:
    """Every engine of the manifest against the device, in the manifest's order.

    The bundled graph comes last where no engine of the manifest is for the CPU.
    """
    engines = manifest.engines
    graph = bundled_graph(manifest)
    if graph is not None:
        engines = (*engines, graph)
    return tuple(EngineFit(engine, misfit(engine, device)) for engine in engines)


def choose(
    manifest: Manifest, folder: Path, device: torch.device, name: str | None = None
) -> EngineRecord:
    """The first engine that runs on the device; with `name`, the first of that name.

    onnxruntime runs on the CPU beside a language model on the GPU, but only where it is named.

    Raises:
        HardwareError: none does, and why of each; or the artifact has none of that name.
    """
    judged = judge(manifest, device)
    if name is not None:
        named = tuple(one for one in judged if one.engine.engine == name)
        if not named:
            held = ", ".join(dict.fromkeys(one.engine.engine for one in judged)) or "none"
            raise HardwareError(
                f"{folder} holds no engine {name!r}; it holds: {held}. Build it with "
                f"`vlmc rebuild {folder} --engine {name} --target smXX`, or leave the option out."
            )
        if name == "onnxruntime":
            return named[0].engine
        judged = named
    for one in judged:
        if one.reason is None:
            return one.engine
    reasons = "; ".join(
        f"{one.engine.engine} for {one.engine.target} {one.reason}" for one in judged
    )
    raise HardwareError(
        f"no vision engine of {folder} runs on {_told(device)}: {reasons or 'it holds none'}. "
        f"{_advice(judged, folder, device)}"
    )


def misfit(engine: EngineRecord, device: torch.device) -> str | None:
    """Why the engine does not run on the device; None where it does. Deserializes nothing."""
    if engine.engine not in _OPENERS:
        return "is of a kind that this version of vlmc does not run"
    if engine.target == "cpu":
        return None if device.type == "cpu" else "runs on the CPU, and not on a GPU"
    if device.type == "cpu":
        return "runs on a GPU, and not on the CPU"
    gpu = gpu_of(device.index or 0)
    if gpu.target != engine.target:
        return f"does not run on {gpu.target}"
    package = PACKAGES[engine.engine]
    needed, here = engine.versions.get(engine.engine), package.version
    if here is None:
        return f"needs {package.module} {needed}, which is not installed: {package.install}"
    if here != needed:
        return f"was built with {package.module} {needed}, and {here} is installed"
    if engine.engine == "inductor":
        other = differences(engine.versions, engine.target, aoti_environment_of(device))
        return f"was compiled for {'; for '.join(other)}" if other else None
    return None


def open_engine(artifact: Artifact, engine: EngineRecord, device: torch.device) -> VisionEngine:
    """Load an engine that `choose` has taken.

    Raises:
        HardwareError: the library refuses the file, or memory is short.
        IntegrityError: the manifest lists no such file.
    """
    return _OPENERS[engine.engine](artifact, engine, device)


def _open_onnxruntime(
    artifact: Artifact, engine: EngineRecord, device: torch.device
) -> VisionEngine:
    from vlmc.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine

    return OnnxRuntimeEngine(artifact.path(engine.file), engine.precision, engine.profiles)


def _open_tensorrt(artifact: Artifact, engine: EngineRecord, device: torch.device) -> VisionEngine:
    from vlmc.runtime.engines.tensorrt_engine import TensorRTEngine

    file = artifact.path(engine.file)
    return TensorRTEngine(file, engine, device, artifact.manifest.payload[engine.file].sha256)


def _open_inductor(artifact: Artifact, engine: EngineRecord, device: torch.device) -> VisionEngine:
    from vlmc.models.vision.tower_file import read_tower_and_precision
    from vlmc.runtime.engines.inductor_engine import InductorEngine

    ranges = (
        artifact.path(payload_name(RANGES)) if engine.precision in CALIBRATED_PRECISIONS else None
    )
    package = artifact.path(engine.file)
    try:
        weights = artifact.path(payload_name(TOWER))
        tower, precision = read_tower_and_precision(weights, ranges, engine.precision, device)
        return InductorEngine(package, engine, tower, precision, device)
    except torch.OutOfMemoryError as error:
        raise HardwareError(
            f"{device} has too little memory free for the tower of {artifact.folder}: {error}. End "
            "what else runs there, or run on the CPU with device='cpu' (--device cpu)."
        ) from error


_OPENERS = {
    "onnxruntime": _open_onnxruntime,
    "tensorrt": _open_tensorrt,
    "tensorrt-rtx": _open_tensorrt,
    "inductor": _open_inductor,
}
"""Engine → what loads one. Each imports its library when it is called."""


def _told(device: torch.device) -> str:
    if device.type == "cpu":
        return "the CPU"
    gpu = gpu_of(device.index or 0)
    return f"{device} ({gpu.name}, {gpu.target})"


def _advice(judged: tuple[EngineFit, ...], folder: Path, device: torch.device) -> str:
    if device.type == "cpu":
        return "Load it on a machine with a GPU that fits, or build it with engine onnxruntime."
    target = gpu_of(device.index or 0).target
    same = [one.engine.engine for one in judged if one.engine.target == target]
    name = same[0] if same else "inductor" if target in _DATA_CENTER else "tensorrt-rtx"
    return (
        f"Build one with `vlmc rebuild {folder} --engine {name} --target {target}`, or run on the "
        "CPU with device='cpu' (--device cpu)."
    )
