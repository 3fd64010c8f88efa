"""The same job by one model in this process, and by workers of a cluster."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tests.jobs.ray.standin import IDENTITY, StandIn, StandInModel
from tests.jobs.small_job import PROMPTS
from vlmc.jobs.input.open import open_input
from vlmc.jobs.input.prompts import Prompt
from vlmc.jobs.job import run_job
from vlmc.jobs.output.parts import PartsFolder
from vlmc.jobs.ray.job import Cluster, run_ray_job
from vlmc.jobs.settings import JobSettings
from vlmc.jobs.summary import JobSummary


def run_local(
    source: Path,
    out: Path,
    prompts: Sequence[Prompt] = PROMPTS,
    *,
    model: StandIn | None = None,
    **options: Any,
) -> JobSummary:
    """The job by one stand-in model."""
    answering = StandInModel(model or StandIn())
    options = {"artifact": IDENTITY, "tiles": "single", **options}
    return run_job(answering, open_input(str(source)), prompts, out, **options)


def run_ray(
    source: Path | str,
    out: Path | str,
    prompts: Sequence[Prompt] = PROMPTS,
    *,
    model: StandIn | None = None,
    settings: JobSettings | None = None,
    workers: int = 2,
    address: str = "local",
    **options: Any,
) -> JobSummary:
    """The job by stand-in models of a cluster."""
    return run_ray_job(
        model or StandIn(),
        open_input(str(source)),
        prompts,
        PartsFolder.of(str(out)),
        Cluster(address, "cpu", workers=workers),
        settings or JobSettings(),
        **options,
    )


def parts_of(out: Path) -> list[Path]:
    """The parts of an output, in order."""
    return sorted(out.glob("part-*"))


def lines_of(out: Path) -> list[dict[str, Any]]:
    """The lines of an output, whether it is a file or a folder of parts."""
    found: list[dict[str, Any]] = []
    for path in parts_of(out) if out.is_dir() else [out]:
        if out.suffix == ".parquet":
            found += pq.read_table(path).to_pylist(maps_as_pydicts="strict")
        else:
            found += [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return found
