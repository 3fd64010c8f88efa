"""The steps that compile the tower's engines for GPUs, in a build and in a rebuild."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vlmc.artifact.manifest import MEASURED, Engine, Profile
from vlmc.artifact.vision_files import FOLDER, GRAPH, RANGES, TOWER, payload_name
from vlmc.build.ingredients import tool_versions
from vlmc.build.step import Step
from vlmc.errors import HardwareError
from vlmc.machine.gpu import gpus
from vlmc.machine.inductor_needs import torch_cuda
from vlmc.machine.package import PACKAGES
from vlmc.recipe.schema import EnginePart
from vlmc.recipe.support import EngineName, Precision

_EXPORTERS = ("onnx", "onnxscript", "torch")
_SUFFIXES: dict[EngineName, str] = {
    "tensorrt": "engine",
    "tensorrt-rtx": "engine",
    "inductor": "pt2",
}
# Stands for the machine's GPU where there is none: planned, and refused when it is to run.
_NO_GPU = "local"


@dataclass(frozen=True, slots=True)
class Wanted:
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


def wanted_engines(parts: Iterable[EnginePart]) -> list[Wanted]:
    """Every engine of a recipe in its order; one without targets is for this machine's GPU."""
    wanted: list[Wanted] = []
    for part in parts:
        targets: Sequence[str] = part.targets
        if part.engine == "onnxruntime":
            targets = ("cpu",)
        elif not targets:
            targets = tuple(gpu.target for gpu in gpus()[:1]) or (_NO_GPU,)
        wanted.extend(Wanted(part.engine, target) for target in targets)
    return wanted


def made_of(engine: EngineName, precision: Precision, name: str) -> bool:
    """Whether the engine is made of an artifact's file: the graph and its weights, or for inductor
    the tower and its ranges."""
    if engine == "inductor":
        ranges = name == payload_name(RANGES) and precision in MEASURED
        return ranges or name == payload_name(TOWER)
    return name.startswith(payload_name(GRAPH))


def engine_step(
    wanted: Wanted,
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
    engine, target = wanted.engine, wanted.target
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
            from vlmc.machine.inductor_needs import device_for

            device_for(target)
        else:
            from vlmc.compile.tensorrt import check_machine

            check_machine(engine, target)

    def work(folder: Path, *needed: Path) -> None:
        check()
        sources = needed if vision is None else (vision,)
        if engine == "inductor":
            from vlmc.compile.inductor import build_package

            ranges = sources[-1] / RANGES if precision in MEASURED else None
            build_package(
                sources[0] / TOWER,
                ranges,
                folder,
                target=target,
                precision=precision,
                profiles=profiles,
            )
            return
        from vlmc.compile.tensorrt import build_plan

        build_plan(sources[0] / GRAPH, folder, engine=engine, target=target, profiles=profiles)

    return Step(
        name=f"vision.{wanted.name}",
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
    wanted: Wanted,
    profiles: Sequence[Profile],
    *,
    precision: Precision,
    min_feature_cosine: float,
    reports: Path,
) -> Engine:
    """What a manifest says of an engine whose step wrote its report into `reports`."""
    known: dict[str, Any] = {}
    versions = tool_versions(*_EXPORTERS)
    if wanted.engine != "onnxruntime":
        known = json.loads((reports / f"vision-{wanted.name}.json").read_bytes())
        versions = {wanted.engine: known["version"], **known.get("needs", {})}
        cuda = PACKAGES[wanted.engine].cuda
        if cuda is not None:
            versions["cuda"] = cuda
    return Engine(
        engine=wanted.engine,
        target=wanted.target,
        precision=precision,
        file=wanted.file,
        profiles=tuple(profiles),
        versions=versions,
        device_memory_bytes=known.get("device_memory_bytes"),
        min_feature_cosine=min_feature_cosine,
    )
