"""`vlmc run --ray`: workers on a cluster."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

from vlmc.cli.options import counted, resumable

if TYPE_CHECKING:
    from vlmc.cli.job_request import JobRequest
    from vlmc.jobs.output.parts import PartsFolder
    from vlmc.jobs.ray.worker import WorkerFacts
    from vlmc.jobs.summary import JobSummary


def run_on_ray(
    request: JobRequest, out: PartsFolder, address: str, workers: int | None
) -> JobSummary:
    """Run the job on the cluster at an address, into a folder of parts."""
    from vlmc.artifact.integrity import open_artifact
    from vlmc.image.tiles import parse_tiles
    from vlmc.jobs.ray.job import Cluster, run_ray_job
    from vlmc.jobs.ray.source import ArtifactSource
    from vlmc.jobs.stop import stopping_on_interrupt
    from vlmc.progress.channel import report
    from vlmc.progress.events import Note

    artifact = open_artifact(request.artifact)
    rules, thresholds = artifact.manifest.image, request.thresholds
    tiles = rules.tiles if request.tiles is None else parse_tiles(request.tiles, rules.published)
    if thresholds is not None:
        thresholds.check_artifact(artifact, tiles)

    def announce(ready: Sequence[WorkerFacts]) -> None:
        hosts = len({facts.host for facts in ready})
        report(Note(f"{counted(len(ready), 'worker')} on {counted(hosts, 'machine')}"))
        # As a rule all have the same engine.
        for engine, chosen in {facts.engine: facts.chosen for facts in ready}.items():
            if chosen is not None:
                request.announce(artifact, tiles, engine, chosen)

    with (
        open(os.devnull, "w") as nowhere,  # noqa: PTH123
        # Where Ray prints its own lines on workers that end; the job reports those itself.
        redirect_stdout(nowhere),
        resumable(),
        stopping_on_interrupt(request.stop),
    ):
        return run_ray_job(
            ArtifactSource(
                artifact,
                tiles,
                request.engine,
                request.devices,
                thresholds,
                request.settings.measure,
            ),
            request.rows,
            request.prompts,
            out,
            Cluster(address, request.device, request.devices, workers),
            request.settings,
            thresholds=None if thresholds is None else thresholds.digest,
            retry_errors=request.retry_errors,
            strict_input=request.strict_input,
            stop=request.stop,
            audit=request.audit,
            on_ready=announce,
        )
