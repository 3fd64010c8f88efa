"""The command that runs a job: every question about every image."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vlmc.cli.options import (
    PATH,
    artifact_argument,
    counted,
    device_option,
    engine_option,
    json_option,
    print_json,
    reporting_errors,
    resumable,
)
from vlmc.errors import AccuracyError, UsageError, VlmcError

if TYPE_CHECKING:
    from vlmc.jobs.summary import JobSummary
    from vlmc.runtime.model import Model
    from vlmc.runtime.requests.scores import ScoreMeasure


@click.command()
@artifact_argument
@click.argument("sources", metavar="INPUT", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    required=True,
    type=PATH,
    help="The file of answers: .jsonl, .ndjson or .parquet. Resumes an interrupted job. `-` "
    "writes JSON lines to stdout.",
)
@click.option("--prompt", "texts", multiple=True, metavar="TEXT", help="A question; repeatable.")
@click.option(
    "--prompts",
    "file",
    type=PATH,
    help="A file of questions: one per line, or JSON lines with `question` and `prompt`.",
)
@click.option("--choices", metavar="A,B", help="Score these answers instead of generating one.")
@click.option(
    "--score",
    type=click.Choice(["logprob", "mean", "probability"]),
    help="What `scores` holds and the best choice is taken by: the log-probability, its mean per "
    "token, or the probability among the choices. [default: logprob]",
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
@engine_option
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
    output: Path,
    texts: tuple[str, ...],
    file: Path | None,
    choices: str | None,
    score: ScoreMeasure | None,
    max_new_tokens: int | None,
    confidence: bool,
    tiles: str | None,
    device: str,
    engine: str | None,
    retry_errors: bool,
    strict_input: bool,
    require_verified: bool,
    as_json: bool,
) -> None:
    """Answer questions about the images of INPUT.

    INPUT is a folder, a quoted glob, a .jsonl, .ndjson, .csv or .parquet file, or `-` for JSON
    lines from stdin. The output has a line for each image and question: row, image, question,
    prompt, answer, scores, image_tokens, error, and the other columns of INPUT.
    """
    from vlmc.cli.views.progress import show_progress
    from vlmc.jobs.input.open import open_input
    from vlmc.jobs.input.prompts import prompts_from_file, prompts_from_texts
    from vlmc.jobs.job import run_job, stream_job
    from vlmc.jobs.preflight import check_job
    from vlmc.progress.channel import report
    from vlmc.progress.events import Note

    _check_options(sources, texts, file, choices, score, max_new_tokens)
    to_stdout = str(output) == "-"
    if to_stdout and (retry_errors or strict_input or as_json):
        raise UsageError(
            "--retry-errors, --strict-input and --json cannot be used with -o -; write to a file"
        )
    source = sources[0]
    rows = open_input(source)
    prompts = prompts_from_file(file) if file is not None else prompts_from_texts(texts)
    labels = None if choices is None else [choice.strip() for choice in choices.split(",")]
    length = max_new_tokens or 5
    measure = score or "logprob"
    # Before the model is loaded, which may take minutes.
    check_job(rows, prompts, None if to_stdout else output, labels, length, confidence)

    from vlmc.runtime.load import load

    with show_progress(), load(artifact, device=device, tiles=tiles, engine=engine) as model:
        if rows.text_only:
            report(Note(f"{source}: has no column image, so its prompts are asked as text alone"))
        status, reasons = _accuracy_in_use(model)
        report(Note(f"{artifact}: {model.engine}, tiles {model.tiles}, accuracy {status}"))
        for reason in reasons:
            report(Note(reason))
        if require_verified and status != "passed":
            raise AccuracyError(
                f"the accuracy of {artifact} with {model.engine} and tiles {model.tiles} is "
                f"{status}, and --require-verified needs it passed. Run `vlmc verify accuracy "
                f"{artifact}` on this machine first, or leave the option out."
            )
        if to_stdout:
            summary = stream_job(
                model,
                rows,
                prompts,
                _write_to_stdout,
                choices=labels,
                max_new_tokens=length,
                confidence=confidence,
                measure=measure,
            )
        else:
            with resumable():
                summary = run_job(
                    model,
                    rows,
                    prompts,
                    output,
                    artifact=model.artifact.identity,
                    tiles=str(model.tiles),
                    choices=labels,
                    max_new_tokens=length,
                    confidence=confidence,
                    measure=measure,
                    retry_errors=retry_errors,
                    strict_input=strict_input,
                )
        for line in _input_lines(summary):
            report(Note(line))
    _print_summary(summary, output, as_json, to_stdout)
    if summary.answers == 0:
        raise VlmcError(
            f"no answers, {counted(summary.errors, 'error')}. Most frequent errors:"
            f"{_reasons_text(summary)}\nCorrect the cause, and run the same command again"
            f"{'' if to_stdout else ' with --retry-errors'}."
        )
    if summary.errors:
        click.echo(f"most frequent errors:{_reasons_text(summary)}", err=True)


def _check_options(
    sources: tuple[str, ...],
    texts: tuple[str, ...],
    file: Path | None,
    choices: str | None,
    score: ScoreMeasure | None,
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
    if score is not None and choices is None:
        raise UsageError("--score is for --choices; add --choices, or leave --score out")


def _write_to_stdout(line: bytes) -> None:
    stream = sys.stdout.buffer
    try:
        stream.write(line)
        stream.flush()
    except BrokenPipeError:
        raise VlmcError("the program that reads stdout has ended; the job stops") from None


def _print_summary(summary: JobSummary, output: Path, as_json: bool, to_stdout: bool) -> None:
    if as_json:
        changes = summary.changes
        print_json(
            {
                "output": str(output),
                "rows": summary.rows,
                "answers": summary.answers,
                "errors": summary.errors,
                "reasons": [{"error": text, "lines": n} for text, n in summary.reasons],
                "resumed": summary.resumed,
                "seconds": round(summary.seconds, 3),
                "added": list(changes.added),
                "removed": list(changes.removed),
                "changed": list(changes.changed),
                "left_out": dict(summary.left_out),
                "rotation_ignored": summary.rotation_ignored,
                "clipped_to_8_bits": summary.clipped_to_8_bits,
            }
        )
        return
    resumed = f", {summary.resumed:,} of them from an earlier run" if summary.resumed else ""
    click.echo(
        f"{counted(summary.answers, 'answer')}, {counted(summary.errors, 'error')} for "
        f"{counted(summary.rows, 'row')} in {summary.seconds:.1f} s{resumed}",
        err=True,
    )
    if not to_stdout:
        click.echo(output)


def _reasons_text(summary: JobSummary) -> str:
    return "".join(f"\n  {count:,} × {text}" for text, count in summary.reasons)


def _input_lines(summary: JobSummary) -> Iterator[str]:
    """What the user should know of the input."""
    from vlmc.jobs.input.image_files import kinds_text

    if summary.changes:
        yield f"image files since the output was begun: {summary.changes}"
    if summary.changes.removed or summary.changes.changed:
        yield (
            "lines of removed and changed files are kept as they are; choose another output to "
            "answer all files again"
        )
    if summary.left_out:
        yield f"left out as not images: {kinds_text(summary.left_out)}"
    if summary.rotation_ignored:
        yield (
            f"pictures whose EXIF rotation was ignored, as in the original: "
            f"{summary.rotation_ignored}; a recipe with image.exif: apply turns them"
        )
    if summary.clipped_to_8_bits:
        yield (
            f"16-bit or float grey pictures clipped to 0..255, as in the original: "
            f"{summary.clipped_to_8_bits}; a recipe with image.high_bit_depth: scale scales them"
        )


def _accuracy_in_use(model: Model) -> tuple[str, tuple[str, ...]]:
    """The status of the engine and tile rule in use, and which reports are ignored and why."""
    from vlmc.artifact.accuracy_status import read_accuracy

    artifact = model.artifact
    found = read_accuracy(artifact.folder, artifact.identity)
    if model.tiles != artifact.manifest.image.tiles:
        return f"unverified, since the artifact's tile rule is {artifact.manifest.image.tiles}", ()
    return found.status(model.chosen), found.ignored
