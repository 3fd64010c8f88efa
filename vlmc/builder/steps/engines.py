"""The steps that compile the tower's engines for GPUs, in a build and in a rebuild."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vlmc.artifact.manifest import CALIBRATED_PRECISIONS, EngineRecord, Profile
from vlmc.artifact.vision_files import FOLDER, GRAPH, RANGES, TOWER, payload_name
from vlmc.builder.steps.step import Step
from vlmc.builder.steps.step_key import tool_versions
from vlmc.errors import HardwareError
from vlmc.machine.aoti_environment import torch_cuda
from vlmc.machine.gpu import gpus
from vlmc.machine.packages import PACKAGES
from vlmc.machine.support import EngineName, Precision
from vlmc.recipe.schema import EnginePart

_EXPORTERS = ("onnx", "onnxscript", "torch")
_SUFFIXES: dict[EngineName, str] = {
    "tensorrt": "engine",
    "tensorrt-rtx": "engine",
    "inductor": "pt2",
}
# In place of the machine's GPU where there is none: planned, and refused before it runs.
_NO_GPU = "local"


@dataclass(frozen=True, slots=True)
class EngineTarget:
    """One engine for one target, which is `cpu` for onnxruntime."""

    engine: EngineName
    target: str

    @property
    def name(self) -> str:
        """`tensorrt-rtx-sm89`, as its step, its file and its report are called."""
        return f"{self.engine}-{self.target}"

    @property
    def file(self) -> str:
        """Where the artifact holds it."""
        if self.engine == "onnxruntime":
            return payload_name(GRAPH)
        return f"{FOLDER}/{self.name}.{_SUFFIXES[self.engine]}"


def engine_targets(parts: Iterable[EnginePart]) -> list[EngineTarget]:
    """Every engine of a recipe in its order; one without targets is for this machine's GPU."""
    engine_target: list[EngineTarget] = []
    for part in parts:
        targets: Sequence[str] = part.targets
        if part.engine == "onnxruntime":
            targets = ("cpu",)
        elif not targets:
            targets = tuple(gpu.target for gpu in gpus()[:1]) or (_NO_GPU,)
        engine_target.extend(EngineTarget(part.engine, target) for target in targets)
    return engine_target


def package_targets(parts: Iterable[EnginePart]) -> list[str]:
    """The GPUs that inductor compiles for: the language model's kernels are compiled for them
    too."""
    targets = [one.target for one in engine_targets(parts) if one.engine == "inductor"]
    return list(dict.fromkeys(targets))


def made_of(engine: EngineName, precision: Precision, name: str) -> bool:
    """Whether the engine is made of an artifact's file: the graph and its weights, or for inductor
    the tower and its ranges."""
    if engine == "inductor":
        ranges = name == payload_name(RANGES) and precision in CALIBRATED_PRECISIONS
        return ranges or name == payload_name(TOWER)
    return name.startswith(payload_name(GRAPH))


def engine_step(
    engine_target: EngineTarget,
    profiles: Sequence[Profile],
    precision: Precision,
    *,
    needs: tuple[Step, ...] = (),
    inputs: Mapping[str, str] | None = None,
    vision: Path | None = None,
) -> Step:
    """The step that makes an engine.

    What it is `made_of` comes from the steps in `needs`, the tower's before that of its ranges, or
    from an artifact's folder `vision`, whose files' digests `inputs` then holds.
    """
    engine, target = engine_target.engine, engine_target.target
    # A machine without the package plans the step, and another makes it.
    tools: dict[str, str] = {engine: PACKAGES[engine].version or "not installed"}
    parameters: dict[str, object] = {"profiles": [asdict(profile) for profile in profiles]}
    if engine == "inductor":
        # Of the others the graph says it.
        parameters["precision"] = precision
        tools["cuda"] = torch_cuda()

    def check() -> None:
        if target == _NO_GPU:
            raise HardwareError(
                f"vision.engines holds {engine} without targets, which is for the GPU of the "
                "machine that builds, and this one has none. Build on a machine with the GPU, or "
                "name targets."
            )
        if engine == "inductor":
            from vlmc.machine.aoti_environment import device_for

            device = device_for(target)
            from vlmc.compile.engines.cpp_compiler import try_compiler

            try_compiler(device.type)
        else:
            from vlmc.compile.engines.tensorrt import check_machine

            check_machine(engine, target)

    def work(folder: Path, *needed: Path) -> None:
        check()
        sources = needed if vision is None else (vision,)
        if engine == "inductor":
            from vlmc.compile.engines.inductor import build_package

            ranges = sources[-1] / RANGES if precision in CALIBRATED_PRECISIONS else None
            build_package(
                sources[0] / TOWER,
                ranges,
                folder,
                target=target,
                precision=precision,
                profiles=profiles,
            )
            return
        from vlmc.compile.engines.tensorrt import build_engine

        build_engine(sources[0] / GRAPH, folder, engine=engine, target=target, profiles=profiles)

    return Step(
        name=f"vision.{engine_target.name}",
        version=2,
        inputs=inputs or {},
        parameters=parameters,
        tools=tools,
        work=work,
        needs=needs,
        reproducible=False,
        check=check,
    )


def manifest_engine(
    engine_target: EngineTarget,
    profiles: Sequence[Profile],
    *,
    precision: Precision,
    min_feature_cosine: float,
    reports: Path,
) -> EngineRecord:
    """What a manifest says of an engine whose step wrote its report into `reports`."""
    known: dict[str, Any] = {}
    versions = tool_versions(*_EXPORTERS)
    if engine_target.engine != "onnxruntime":
        known = json.loads((reports / f"vision-{engine_target.name}.json").read_bytes())
        versions = {engine_target.engine: known["version"], **known.get("needs", {})}
        cuda = PACKAGES[engine_target.engine].cuda
        if cuda is not None:
            versions["cuda"] = cuda
    return EngineRecord(
        engine=engine_target.engine,
        target=engine_target.target,
        precision=precision,
        file=engine_target.file,
        profiles=tuple(profiles),
        versions=versions,
        device_memory_bytes=known.get("device_memory_bytes"),
        min_feature_cosine=min_feature_cosine,
    )
