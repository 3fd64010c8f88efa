"""`vlmc run` with one model in this process."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vlmc.cli.options import resumable
from vlmc.errors import VlmcError

if TYPE_CHECKING:
    from vlmc.cli.job_request import JobRequest
    from vlmc.jobs.summary import JobSummary
    from vlmc.jobs.thresholds import ThresholdModel
    from vlmc.runtime.model import Model


def run_local(request: JobRequest, out: Path | None) -> JobSummary:
    """Load the artifact and run the job into `out`, or onto stdout."""
    from vlmc.jobs.audit import Audit
    from vlmc.jobs.input.remote import RemoteFile, is_remote
    from vlmc.jobs.job import run_job, stream_job
    from vlmc.jobs.output.upload import upload
    from vlmc.jobs.stop import stopping_on_interrupt
    from vlmc.jobs.thresholds import ThresholdModel
    from vlmc.runtime.load import load

    settings, thresholds = request.settings, request.thresholds
    loaded = load(
        request.artifact,
        device=request.device,
        devices=request.devices,
        tiles=request.tiles,
        engine=request.engine,
    )
    with loaded as model:
        request.announce(model.artifact, model.tiles, model.engine, model.chosen)
        answering: Model | ThresholdModel = model
        if thresholds is not None:
            thresholds.check_artifact(model.artifact, model.tiles)
            answering = ThresholdModel(model, thresholds, settings.measure)
        ask = partial(
            stream_job if out is None else run_job,
            answering,
            request.rows,
            request.prompts,
            choices=settings.choices,
            max_new_tokens=settings.max_new_tokens,
            confidence=settings.confidence,
            measure=settings.measure,
            stop=request.stop,
            audit=None if request.audit is None else Audit(answering, request.audit),
        )
        with resumable(), stopping_on_interrupt(request.stop):
            if out is None:
                return ask(_write_to_stdout)
            summary = ask(
                out,
                artifact=model.artifact.identity,
                tiles=str(model.tiles),
                retry_errors=request.retry_errors,
                strict_input=request.strict_input,
                thresholds=None if thresholds is None else thresholds.digest,
            )
            if is_remote(request.output) and not summary.remaining:
                upload(out, RemoteFile(request.output))
        return summary


def _write_to_stdout(line: bytes) -> None:
    stream = sys.stdout.buffer
    try:
        stream.write(line)
        stream.flush()
    except BrokenPipeError:
        raise VlmcError("the program that reads stdout has ended; the job stops") from None
