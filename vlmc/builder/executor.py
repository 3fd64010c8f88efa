"""Take each step from the cache, or make it once; copy steps into an artifact."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vlmc.builder.steps.step import REPORT, Step
from vlmc.builder.store.disk_errors import explain_disk_errors
from vlmc.builder.store.step_cache import CachedStep, Damage, StepCache
from vlmc.errors import BuildError
from vlmc.files.copy import copy_file
from vlmc.files.hashing import files_sha256
from vlmc.progress.channel import report, reporting_step
from vlmc.progress.events import (
    StepCached,
    StepDamaged,
    StepDone,
    StepStarted,
    StepWaiting,
)

_ADVICE = (
    "the cache is as it was. Free space there with `vlmc cache prune`, or name a folder on another "
    "disk in VLMC_CACHE, then build again: finished steps are kept."
)
_FAILING = (
    "a moment after it was written. The disk or the memory of this machine is failing; name a "
    "folder on another disk in VLMC_CACHE."
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A step that is in the cache now, and how it came there."""

    step: Step
    entry: CachedStep
    state: Literal["built", "cached"]

    def to_json(self) -> dict[str, Any]:
        """The JSON form, as `reports/build.json` holds it."""
        return {
            "name": self.step.name,
            "key": self.entry.key,
            "state": self.state,
            "seconds": self.entry.seconds,
            "peak_memory_bytes": self.entry.peak_memory_bytes,
            "bytes": self.entry.bytes,
        }


def run_step(step: Step, cache: StepCache, *, force: bool = False) -> Outcome:
    """Make sure that the step is in the cache; `force` makes it even if it is.

    Where another process makes the step just now, waits for it, and takes over if it ends without.

    Raises:
        BuildError: the work failed, or the disk is full; the cache is as it was.
        VlmcError: as the work says.
    """
    key = step.key

    def waiting() -> None:
        report(StepWaiting(step.name))

    with (
        explain_disk_errors(f"step {step.name} failed", cache.folder, _ADVICE),
        cache.locked(key, waiting=waiting),
    ):
        found = None if force else cache.check(key)
        if isinstance(found, CachedStep):
            cache.mark_used(key)
            report(StepCached(step.name, found.seconds, found.peak_memory_bytes, found.bytes))
            return Outcome(step, found, "cached")
        if isinstance(found, Damage):
            report(StepDamaged(step.name, found.reason))
        with ExitStack() as held:
            needed = [_hold(need, cache, held) for need in step.needs]
            report(StepStarted(step.name))
            with reporting_step(step.name):
                entry = cache.store(step, needed)
    report(StepDone(step.name, entry.seconds, entry.peak_memory_bytes, entry.bytes))
    return Outcome(step, entry, "built")


def _hold(step: Step, cache: StepCache, held: ExitStack) -> Path:
    """The folder of a step that another is about to read, made if need be, its hashes checked.

    It is kept from being pruned until `held` is closed.

    Raises:
        BuildError: as `run_step`, or the new files are damaged too.
    """
    for _ in range(3):
        with ExitStack() as attempt:
            attempt.enter_context(cache.locked(step.key, shared=True))
            found = cache.check(step.key)
            damage = (
                _difference(found, _targets(found, found.folder))
                if isinstance(found, CachedStep)
                else None
            )
            if isinstance(found, CachedStep) and damage is None:
                held.enter_context(attempt.pop_all())
                return found.folder
        if damage is not None:
            report(StepDamaged(step.name, damage))
        run_step(step, cache, force=damage is not None)
    raise BuildError(f"{cache.folder}: {step.name} {_FAILING}")


def place(
    outcome: Outcome, folder: Path, cache: StepCache, *, reports: Path | None = None
) -> Outcome:
    """Copy a step's files into `folder`, checked; a damaged or pruned step is rerun first.

    What the step wrote below `report/` is for people and goes into `reports`, if that is given.

    Raises:
        BuildError: as `run_step`, or the new files are damaged too.
        OSError: the folder cannot be written to.
    """
    for _ in range(2):
        with cache.locked(outcome.step.key, shared=True):
            damage = _copy(outcome.entry, _targets(outcome.entry, folder, reports))
        if damage is None:
            return outcome
        report(StepDamaged(outcome.step.name, damage))
        outcome = run_step(outcome.step, cache, force=True)
    raise BuildError(f"{outcome.entry.folder}: {damage}, {_FAILING}")


def _targets(entry: CachedStep, folder: Path, reports: Path | None = None) -> dict[str, Path]:
    """Where each file of a step belongs, by its name in the step."""
    targets = {name: folder / name for name in entry.files}
    if reports is not None:
        for name in entry.files:
            top, _, below = name.partition("/")
            if top == REPORT:
                targets[name] = reports / below
    return targets


def _copy(entry: CachedStep, targets: Mapping[str, Path]) -> str | None:
    """Copy the files; returns what is wrong with the first that is not as it was stored."""
    for name, target in targets.items():
        source = entry.folder / name
        if not source.is_file():
            return f"{name} is gone"
        target.parent.mkdir(parents=True, exist_ok=True)
        copy_file(source, target)
    # Of the copies, so that what was hashed is what the artifact holds.
    return _difference(entry, targets)


def _difference(entry: CachedStep, targets: Mapping[str, Path]) -> str | None:
    """What is wrong with the first of the files there that is not as it was stored."""
    digests = files_sha256({targets[name]: file.size for name, file in entry.files.items()})
    for name, file in entry.files.items():
        if digests[targets[name]] != file.sha256:
            return f"{name} is not what was stored"
    return None
