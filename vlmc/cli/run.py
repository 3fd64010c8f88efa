"""The command that runs a job: every question about every image."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vlmc.cli.job_summary import input_lines, reasons_text, summary_json, summary_lines
from vlmc.cli.options import (
    PATH,
    artifact_argument,
    counted,
    device_option,
    devices_option,
    engine_option,
    json_option,
    parse_seconds,
    print_json,
    refuse_beside,
    reporting_errors,
)
from vlmc.errors import UsageError, VlmcError

if TYPE_CHECKING:
    from vlmc.runtime.requests.scores import ScoreMeasure


def _parse_address(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> str | None:
    """The callback of --ray, which takes an argument that follows it for its address."""
    if value is None:
        return None
    from vlmc.jobs.ray.address import is_address

    if not is_address(value):
        raise click.BadParameter(
            f"{value!r} is not an address, which is auto, HOST:PORT or ray://HOST:PORT. To give "
            "none, write --ray at the end or before another option."
        )
    return value


@click.command()
@artifact_argument
@click.argument("sources", metavar="INPUT", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FILE",
    help="The file of answers: .jsonl, .ndjson or .parquet, on this machine or at an address such "
    "as s3://bucket/file. Resumes an interrupted job. `-` writes JSON lines to stdout.",
)
@click.option("--prompt", "texts", multiple=True, metavar="TEXT", help="A question; repeatable.")
@click.option(
    "--prompts",
    "file",
    type=PATH,
    help="A file of questions: one per line, or JSON lines with `prompt`, and perhaps `question` "
    "and `choices`.",
)
@click.option("--choices", metavar="A,B", help="Score these answers instead of generating one.")
@click.option(
    "--score",
    type=click.Choice(["logprob", "mean", "probability"]),
    help="What `scores` holds and the best choice is taken by: the log-probability, its mean per "
    "token, or the probability among the choices. [default: logprob]",
)
@click.option(
    "--threshold",
    "thresholds_file",
    type=PATH,
    help="A file of `vlmc verify accuracy --min-recall`: the answer is the positive choice "
    "where its probability reaches the question's threshold.",
)
@click.option(
    "--max-new-tokens",
    type=click.IntRange(min=1),
    help="The maximum length of a generated answer. [default: 5]",
)
@click.option(
    "--confidence",
    is_flag=True,
    help="Add the mean and the least probability of a generated answer's tokens.",
)
@click.option(
    "--tiles",
    metavar="RULE",
    help="The tile rule instead of the artifact's: original, native:max=4, single.",
)
@device_option
@devices_option
@engine_option
@click.option(
    "--max-errors",
    type=click.IntRange(min=1),
    help="Stop after so many rows with an error in this run, with exit code 1.",
)
@click.option(
    "--deadline",
    callback=parse_seconds,
    metavar="DURATION",
    help="Stop in order so long after the start, such as 90s, 30m or 1h30m, with exit code 1.",
)
@click.option(
    "--audit",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="SHARE",
    help="Answer this share of the questions again by the plain reference path, and report the "
    "agreement.",
)
@click.option(
    "--ray",
    "address",
    is_flag=False,
    flag_value="local",
    callback=_parse_address,
    metavar="[ADDRESS]",
    help="Run on all GPUs of this machine, or of the Ray cluster at ADDRESS: auto, HOST:PORT or "
    "ray://HOST:PORT. The output is a folder of parts.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="With --ray, how many copies of the model answer. [default: one on each GPU, or else one "
    "for every 4 cores]",
)
@click.option("--retry-errors", is_flag=True, help="Rerun the lines that hold an error.")
@click.option(
    "--strict-input",
    is_flag=True,
    help="Refuse to resume if image files were added, removed or changed.",
)
@click.option(
    "--require-verified",
    is_flag=True,
    help="Require a passed `vlmc verify accuracy` of the engine and the tile rule.",
)
@json_option
@reporting_errors
def run(
    artifact: Path,
    sources: tuple[str, ...],
    output: str,
    texts: tuple[str, ...],
    file: Path | None,
    choices: str | None,
    score: ScoreMeasure | None,
    thresholds_file: Path | None,
    max_new_tokens: int | None,
    confidence: bool,
    tiles: str | None,
    device: str,
    devices: int,
    engine: str | None,
    max_errors: int | None,
    deadline: float | None,
    audit: float | None,
    address: str | None,
    workers: int | None,
    retry_errors: bool,
    strict_input: bool,
    require_verified: bool,
    as_json: bool,
) -> None:
    """Answer questions about the images of INPUT.

    INPUT is a folder, a quoted glob, a .jsonl, .ndjson, .csv or .parquet file, webdataset shards
    (.tar), an OpenAI batch (.jsonl), or `-` for JSON lines from stdin; on this machine, or at an
    address such as s3://bucket/folder. The output has a line for each image and question, in their
    order: row, image, question, prompt, answer, scores, image_tokens, error, and the other columns
    of INPUT. The results of an OpenAI batch are in OpenAI's form.
    """
    started_at = time.monotonic()
    from vlmc.cli.job_request import JobRequest
    from vlmc.cli.run_local import run_local
    from vlmc.cli.run_ray import run_on_ray
    from vlmc.cli.views.progress import show_progress
    from vlmc.jobs.input.open import open_input
    from vlmc.jobs.input.prompts import prompts_from_file, prompts_from_texts
    from vlmc.jobs.output.parts import PartsFolder
    from vlmc.jobs.output.upload import writable_output
    from vlmc.jobs.preflight import check_job, check_questions
    from vlmc.jobs.settings import JobSettings
    from vlmc.jobs.stop import Stop
    from vlmc.jobs.thresholds import check_input, with_choices
    from vlmc.progress.channel import report
    from vlmc.progress.events import Note
    from vlmc.runtime.requests.thresholds import read_thresholds

    _check_options(sources, texts, file, choices, max_new_tokens)
    to_stdout = output == "-"
    if to_stdout and (retry_errors or strict_input or as_json):
        raise UsageError(
            "--retry-errors, --strict-input and --json cannot be used with -o -; write to a file"
        )
    if address is None and workers is not None:
        raise UsageError("--workers has no effect without --ray; add it, or leave --workers out")
    if address is not None and to_stdout:
        raise UsageError("--ray writes a folder of parts, so -o - cannot be used; name a folder")
    source = sources[0]
    with show_progress():
        rows = open_input(source)
    prompts = prompts_from_file(file) if file is not None else prompts_from_texts(texts)
    thresholds = None
    if thresholds_file is not None:
        unused = {"--choices": choices, "--max-new-tokens": max_new_tokens}
        refuse_beside("--threshold", unused | {"--confidence": confidence})
        thresholds = read_thresholds(thresholds_file)
        check_input(rows)
        prompts = with_choices(prompts, thresholds)
    any_scored = bool(thresholds or choices) or any(prompt.choices for prompt in prompts)
    if score is not None and not any_scored:
        raise UsageError("--score is for choices; add --choices, or leave --score out")
    if max_new_tokens is not None and prompts and all(prompt.choices for prompt in prompts):
        raise UsageError(
            f"--max-new-tokens is given, but all questions of {file} have choices, which are "
            "scored whole; leave it out"
        )
    labels = None if choices is None else tuple(choice.strip() for choice in choices.split(","))
    settings = JobSettings(labels, max_new_tokens or 5, confidence, score or "logprob")
    request = JobRequest(
        artifact=artifact,
        rows=rows,
        prompts=prompts,
        output=output,
        settings=settings,
        thresholds=thresholds,
        tiles=tiles,
        device=device,
        devices=devices,
        engine=engine,
        audit=audit,
        retry_errors=retry_errors,
        strict_input=strict_input,
        require_verified=require_verified,
        stop=Stop(max_errors=max_errors, seconds=deadline, since=started_at),
    )
    # Before the model is loaded, which may take minutes.
    asked = (labels, settings.max_new_tokens, confidence)
    if address is None:
        out = None if to_stdout else writable_output(output)
        check_job(rows, prompts, out, *asked)
        job = partial(run_local, request, out)
    else:
        folder = PartsFolder.of(output)
        check_questions(rows, prompts, folder.suffix, *asked)
        job = partial(run_on_ray, request, folder, address, workers)
    with show_progress():
        if rows.text_only:
            report(Note(f"{source}: has no column image, so its prompts are asked as text alone"))
        summary = job()
        for line in input_lines(summary):
            report(Note(line))
    if as_json:
        print_json(summary_json(summary, output))
    else:
        for line in summary_lines(summary):
            click.echo(line, err=True)
        if not to_stdout:
            click.echo(output)
    if summary.stopped is not None:
        raise VlmcError(
            f"the job stopped before its end, since {summary.stopped}. "
            f"{counted(summary.remaining, 'line')} remain{'s' * (summary.remaining == 1)}"
            + (
                "; lines on stdout cannot be resumed."
                if to_stdout
                else ". Finished work is kept; run the same command again to resume."
            )
        )
    if summary.answers == 0:
        raise VlmcError(
            f"no answers, {counted(summary.errors, 'error')}. Most frequent errors:"
            f"{reasons_text(summary)}\nCorrect the cause, and run the same command again"
            f"{'' if to_stdout else ' with --retry-errors'}."
        )
    if summary.errors:
        click.echo(f"most frequent errors:{reasons_text(summary)}", err=True)


def _check_options(
    sources: tuple[str, ...],
    texts: tuple[str, ...],
    file: Path | None,
    choices: str | None,
    max_new_tokens: int | None,
) -> None:
    """Refuse options that do not go together."""
    if len(sources) > 1:
        raise UsageError(
            f"{len(sources)} inputs are given ({sources[0]}, {sources[1]}"
            f"{', …' if len(sources) > 2 else ''}), but vlmc run takes one. If the shell expanded "
            "a pattern, put it in quotes: 'images/*.jpg'"
        )
    if texts and file is not None:
        raise UsageError("--prompt and --prompts are both given; put all questions in the file")
    if choices is not None and max_new_tokens is not None:
        raise UsageError(
            "--choices and --max-new-tokens are both given, but choices are scored whole; leave "
            "one out"
        )
