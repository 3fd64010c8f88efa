"""Which engines this machine can run, and which one of an artifact `load` would use."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from vlmc.artifact.integrity import open_artifact
from vlmc.artifact.manifest import EngineRecord
from vlmc.errors import HardwareError
from vlmc.machine.gpu import Gpu, driver_version, gpus
from vlmc.machine.packages import MIN_DRIVER, PACKAGES
from vlmc.machine.support import ENGINES, PRECISIONS, TARGETS, EngineName, targets_of
from vlmc.runtime.engines.language_kernels import kernels_here
from vlmc.runtime.engines.selection import EngineFit, choose, find_device, judge, open_engine
from vlmc.runtime.engines.self_test import SelfTest, check_golden, machine_name, recorded
from vlmc.version import __version__


@dataclass(frozen=True, slots=True)
class EngineHere:
    """An engine on this machine; `reason` says why it does not run and is None if it runs.

    `version` is the installed version of its package.
    """

    engine: str
    version: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class ArtifactHere:
    """An artifact on this machine: `taken` is the engine that `load` uses. If there is none,
    `problem` says why."""

    folder: Path
    identity: str
    judged: tuple[EngineFit, ...]
    taken: EngineRecord | None
    kernels: str | None  # of the language model; None where the device is not there
    self_test: SelfTest | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A machine, and an artifact on it if one is given."""

    driver: str | None
    gpus: tuple[Gpu, ...]
    cpu: str
    engines: tuple[EngineHere, ...]
    artifact: ArtifactHere | None

    @property
    def exit_code(self) -> int:
        """The code of a hardware mismatch if this machine cannot run the artifact, else 0."""
        failed = self.artifact is not None and self.artifact.problem is not None
        return HardwareError.exit_code if failed else 0

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        values: dict[str, Any] = {
            "vlmc": __version__,
            "torch": torch.__version__,
            "driver": self.driver,
            "gpus": [asdict(gpu) for gpu in self.gpus],
            "cpu": self.cpu,
            "engines": [asdict(engine) for engine in self.engines],
            "artifact": None,
        }
        here = self.artifact
        if here is not None:
            values["artifact"] = {
                "folder": str(here.folder),
                "identity": here.identity,
                "kernels": here.kernels,
                "engines": [
                    {"engine": one.engine.engine, "target": one.engine.target, "reason": one.reason}
                    for one in here.judged
                ],
                "taken": None
                if here.taken is None
                else {"engine": here.taken.engine, "target": here.taken.target},
                "self_test": None
                if here.self_test is None
                else asdict(here.self_test) | {"passed": here.self_test.passed},
                "problem": here.problem,
            }
        return values

    def lines(self) -> list[str]:
        """The text form."""
        rows = [
            ("vlmc", f"{__version__}, torch {torch.__version__}"),
            ("driver", self.driver or "none"),
            *(
                ("gpu", f"{gpu.name}, {gpu.target}, {gpu.memory_bytes:,} bytes")
                for gpu in self.gpus
            ),
            ("cpu", self.cpu),
            *(
                (
                    engine.engine,
                    f"{engine.version or 'not installed'}; "
                    + ("runs here" if engine.reason is None else engine.reason),
                )
                for engine in self.engines
            ),
        ]
        if self.artifact is not None:
            rows += _artifact_rows(self.artifact)
        return [f"{key:<16}{value}" for key, value in rows]


def examine(artifact: Path | None = None, device: str = "auto") -> Diagnosis:
    """Examine the machine, and check an artifact, its engine and its self-test on it.

    The self-test runs unless the user's cache holds its result.

    Raises:
        IntegrityError: the artifact is damaged.
        UsageError: `device` cannot be read.
    """
    found, driver = gpus(), driver_version()
    return Diagnosis(
        driver=driver,
        gpus=found,
        cpu=machine_name(torch.device("cpu")),
        engines=tuple(_engine_here(name, found, driver) for name in ENGINES),
        artifact=None if artifact is None else _artifact_here(artifact, device),
    )


def _engine_here(name: EngineName, found: tuple[Gpu, ...], driver: str | None) -> EngineHere:
    package = PACKAGES[name]
    return EngineHere(name, package.version, _reason(name, found, driver))


def _reason(name: EngineName, found: tuple[Gpu, ...], driver: str | None) -> str | None:
    package = PACKAGES[name]
    if package.version is None:
        return f"needs {package.module}: {package.install}"
    if name == "onnxruntime":
        return None
    if not found:
        return "needs a GPU, but this machine has none"
    fitting = {target for precision in PRECISIONS for target in targets_of(name, precision)}
    if not any(gpu.target in fitting for gpu in found):
        known = ", ".join(target for target in TARGETS if target in fitting)
        return f"runs on {known}, not on {', '.join(gpu.target for gpu in found)}"
    oldest = MIN_DRIVER.get(package.cuda or "")
    if oldest is not None and driver is not None and int(driver.split(".")[0]) < oldest:
        return f"is built for CUDA {package.cuda}, which needs driver {oldest} or newer"
    if not torch.cuda.is_available():
        return f"needs torch with CUDA, but torch {torch.__version__} finds no GPU"
    return None


def _artifact_here(path: Path, text: str) -> ArtifactHere:
    opened = open_artifact(path)
    judged: tuple[EngineFit, ...] = ()
    taken: EngineRecord | None = None
    result: SelfTest | None = None
    problem: str | None = None
    kernels: str | None = None
    try:
        device = find_device(text)
        kernels = kernels_here(opened, device)
        judged = judge(opened.manifest, device)
        taken = choose(opened.manifest, opened.folder, device)
        engine = open_engine(opened, taken, device)
        try:
            result = check_golden(opened, taken, engine)
        except HardwareError:
            result = recorded(opened, taken, engine.device)
            raise
        finally:
            engine.close()
    except HardwareError as error:
        problem = str(error)
    return ArtifactHere(opened.folder, opened.identity, judged, taken, kernels, result, problem)


def _artifact_rows(here: ArtifactHere) -> list[tuple[str, str]]:
    rows = [("artifact", f"{here.folder}, identity {here.identity}")]
    for one in here.judged:
        taken = one.engine == here.taken
        said = "is used" if taken else one.reason or "can run, but comes after the one in use"
        rows.append(("  engine", f"{one.engine.engine} for {one.engine.target} {said}"))
    if here.kernels is not None:
        rows.append(("  kernels", here.kernels))
    if here.self_test is not None:
        test = here.self_test
        rows.append(
            (
                "  self-test",
                f"{'passed' if test.passed else 'failed'}: worst cosine {test.worst_cosine:.6f}, "
                f"golden tile {test.tile}; required: {test.threshold}",
            )
        )
    if here.problem is not None:
        rows.append(("  problem", here.problem))
    return rows
