"""Build an artifact's engines for other hardware, from what the artifact holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import yaml

from vlmc.artifact.integrity import REPORTS, Artifact, open_artifact
from vlmc.artifact.language_files import KERNELS
from vlmc.artifact.manifest import EngineRecord, Manifest
from vlmc.artifact.write import publish, seal
from vlmc.builder.executor import Outcome, place, run_step
from vlmc.builder.steps.engines import EngineTarget, engine_step, made_of, manifest_engine
from vlmc.builder.steps.language_kernels import kernels_step
from vlmc.builder.steps.recipe_steps import wing
from vlmc.builder.steps.step import Step
from vlmc.builder.store.disk_errors import explain_disk_errors
from vlmc.builder.store.step_cache import StepCache
from vlmc.checkpoint.config import read_language_config
from vlmc.errors import IntegrityError, UsageError
from vlmc.files.copy import copy_file
from vlmc.files.staging import staging_folder
from vlmc.machine.support import (
    REBUILT,
    TARGETS,
    EngineName,
    Precision,
    refusal,
    targets_of,
)
from vlmc.progress.channel import report
from vlmc.progress.events import Note, StepsPlanned
from vlmc.version import __version__

_RECIPE = "recipe.yaml"
_ADVICE = "free some, or name a folder on another disk with -o."


def rebuild(
    source: Path,
    engine: EngineName,
    targets: Sequence[str],
    output: Path | None,
    *,
    cache: StepCache | None = None,
) -> Path:
    """Build a new artifact with `engine` for these targets, and return its folder.

    It holds what `source` holds, except the engines for GPUs, which the new ones replace; the
    graph stays for the CPU. Without `output` it becomes `<name>-<id8>` beside `source`. No link
    is moved: the new artifact is for other machines than this one may be.

    Raises:
        UsageError: the engine does not go with a target and the artifact's precision.
        IntegrityError: `source` is damaged.
        BuildError, HardwareError: as the engine's step.
    """
    cache = StepCache() if cache is None else cache
    old = open_artifact(source)
    # Where `source` is a link, its own name says where the user keeps artifacts.
    parent = source.absolute().parent if output is None else output.parent
    first = _first(old)
    precision = cast(Precision, first.precision)
    _check(engine, targets, precision)
    engine_target = [EngineTarget(engine, target) for target in dict.fromkeys(targets)]
    steps = [
        engine_step(
            one,
            first.profiles,
            precision,
            inputs={
                name: entry.sha256
                for name, entry in old.manifest.payload.items()
                if made_of(engine, precision, name)
            },
            vision=old.folder / "vision",
        )
        for one in engine_target
    ]
    if engine == "inductor":
        steps += [_kernels(old, one.target) for one in engine_target]
    with explain_disk_errors(f"{output or parent} cannot be built", parent, _ADVICE):
        report(StepsPlanned(tuple(step.name for step in steps)))
        outcomes = [run_step(step, cache) for step in steps]
        name = old.manifest.name if output is None else output.name
        parent.mkdir(parents=True, exist_ok=True)
        with staging_folder(parent, name) as folder:
            reports = folder / REPORTS
            _copy_kept(old, folder)
            outcomes = [
                place(outcome, folder / wing(outcome.step), cache, reports=reports)
                for outcome in outcomes
            ]
            described = partial(
                manifest_engine,
                profiles=first.profiles,
                precision=precision,
                min_feature_cosine=first.min_feature_cosine,
                reports=reports,
            )
            engines = (
                *(described(one) for one in engine_target),
                *(held for held in old.manifest.engines if held.target == "cpu"),
            )
            _write_recipe(folder / _RECIPE, engines)
            report(Note("manifest: hashing the payload"))
            manifest = seal(
                folder, replace(old.manifest, vlmc=__version__, engines=engines, payload={})
            )
            _check_kept(old, manifest)
            _write_report(reports, old, manifest.identity, outcomes)
            target = parent / f"{name}-{manifest.identity[:8]}" if output is None else output
            publish(folder, target)
    report(Note(f"built {target}"))
    return target


def engine_named(text: str) -> EngineName:
    """The engine that `--engine` names.

    Raises:
        UsageError: `vlmc rebuild` does not build it.
    """
    for engine in REBUILT:
        if text == engine:
            return engine
    held = " Every artifact holds its graph." if text == "onnxruntime" else ""
    raise UsageError(f"--engine {text} is not one of {', '.join(REBUILT)}.{held}")


def _first(old: Artifact) -> EngineRecord:
    """The engine whose precision, profiles and threshold the new ones use."""
    if not old.manifest.engines:
        raise IntegrityError(f"{old.folder} holds no engine; build it again from its recipe")
    return old.manifest.engines[0]


def _check(engine: EngineName, targets: Sequence[str], precision: Precision) -> None:
    engine_named(engine)
    for target in targets:
        reason = (
            f"the target is unknown (known: {', '.join(TARGETS)})"
            if target not in TARGETS
            else refusal(engine, precision, target)
        )
        if reason is not None:
            raise UsageError(
                f"--target {target} does not go with --engine {engine} and the artifact's "
                f"precision {precision}: {reason}. Allowed with {engine} and {precision}: "
                f"{', '.join(targets_of(engine, precision)) or 'none'}"
            )


def _kernels(old: Artifact, target: str) -> Step:
    folder = old.folder / "language"
    manifest = old.manifest
    config = read_language_config(folder / "config.json")
    return kernels_step(target, config, manifest.language_scheme, manifest.language_dtype)


def _holds_kernels(name: str) -> bool:
    """Whether a file of the payload holds compiled kernels of the language model."""
    return name.startswith(f"{KERNELS}-")


def _copy_kept(old: Artifact, folder: Path) -> None:
    dropped = {engine.file for engine in old.manifest.engines if engine.target != "cpu"}
    dropped |= {name for name in old.manifest.payload if _holds_kernels(name)}
    for name in old.manifest.payload.keys() - dropped:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        copy_file(old.folder / name, path)


def _check_kept(old: Artifact, new: Manifest) -> None:
    """What was copied is what was checked."""
    for name, entry in new.payload.items():
        kept = old.manifest.payload.get(name, entry)
        if name != _RECIPE and not _holds_kernels(name) and kept != entry:
            raise IntegrityError(f"{old.folder / name} was changed while it was copied")


def _write_recipe(path: Path, engines: Sequence[EngineRecord]) -> None:
    """The recipe with these engines, and nothing else changed in it."""
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    targets: dict[str, list[str]] = {}
    for engine in engines:
        held = targets.setdefault(engine.engine, [])
        if engine.target != "cpu":
            held.append(engine.target)
    values["vision"]["engines"] = [
        {"engine": name} | ({"targets": held} if held else {}) for name, held in targets.items()
    ]
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    path.write_text(text, encoding="utf-8")


def _write_report(reports: Path, old: Artifact, identity: str, outcomes: Sequence[Outcome]) -> None:
    values = {
        "identity": identity,
        "rebuilt_from": old.identity,
        "steps": [outcome.to_json() for outcome in outcomes],
    }
    (reports / "build.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
