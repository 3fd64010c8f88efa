"""Measure the rungs of a ladder, one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from vlmc.artifact.manifest import RuntimeRules
from vlmc.bench.ladder import Lever, Rung, ladder_values
from vlmc.bench.measure import measure
from vlmc.bench.memory import free_memory
from vlmc.bench.report import BenchReport
from vlmc.bench.subject import Parts, Subject, make_subject
from vlmc.bench.workload import Workload
from vlmc.runtime.engines.engine import VisionEngine
from vlmc.runtime.engines.lent import Lent


def climb(
    ladder: Sequence[Rung],
    make: Callable[[Rung], Subject],
    workload: Workload,
    runs: int,
    report: BenchReport,
) -> dict[str, Any]:
    """Measure each lever that can be shown; `make` assembles the model of one."""
    cases = {}
    for rung in ladder:
        if rung.missing is None:
            subject = make(rung)
            try:
                (measured,) = measure([subject], workload, runs)
            finally:
                subject.close()
                free_memory(subject.device)
            cases[rung.lever] = report.add(measured)
    return report.finish(ladder_values(ladder, cases))


def make_rung(parts: Parts, engine: VisionEngine, rung: Rung, rules: RuntimeRules) -> Subject:
    """The model of a rung; it leaves the engine open."""
    return make_subject(
        rung.title,
        parts,
        Lent(engine, through_cpu=rung.setting.through_cpu),
        tiles=rung.setting.tiles,
        rules=rules,
        resampler=rung.setting.resampler,
    )


def missing_on(device: torch.device) -> dict[Lever, str]:
    """Levers that a device has nothing to pull for."""
    if device.type == "cuda":
        return {}
    return {
        "features": "on a CPU they never leave its memory",
        "graphs": "they are for GPUs",
    }
