"""The command that runs a job: every question about every image."""

from __future__ import annotations

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
from vlmc.errors import AccuracyError, UsageError

if TYPE_CHECKING:
    from vlmc.jobs.job import JobSummary
    from vlmc.runtime.model import Model


@click.command()
@artifact_argument
@click.argument("source", metavar="INPUT")
@click.option(
    "-o",
    "--output",
    required=True,
    type=PATH,
    help="The file of answers, .jsonl or .parquet. Resumes an interrupted job.",
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
    "--max-new-tokens",
    default=5,
    show_default=True,
    type=click.IntRange(min=1),
    help="The maximum length of a generated answer.",
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
    "--require-verified",
    is_flag=True,
    help="Require a passed `vlmc verify accuracy` of the engine and the tile rule.",
)
@json_option
@reporting_errors
def run(
    artifact: Path,
    source: str,
    output: Path,
    texts: tuple[str, ...],
    file: Path | None,
    choices: str | None,
    max_new_tokens: int,
    tiles: str | None,
    device: str,
    engine: str | None,
    retry_errors: bool,
    require_verified: bool,
    as_json: bool,
) -> None:
    """Answer questions about the images of INPUT.

    INPUT is a folder, a glob, or a .jsonl or .parquet file. The output has a line for each image
    and question: row, image, question, prompt, answer, scores, image_tokens, error, and the other
    columns of INPUT.
    """
    from vlmc.cli.views.progress import show_progress
    from vlmc.jobs.input.open import open_input
    from vlmc.jobs.input.prompts import prompts_from_file, prompts_from_texts
    from vlmc.jobs.job import run_job
    from vlmc.progress.channel import report
    from vlmc.progress.events import Note

    if texts and file is not None:
        raise UsageError("--prompt and --prompts are both given; put all questions in the file")
    rows = open_input(source)
    prompts = prompts_from_file(file) if file is not None else prompts_from_texts(texts)

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
        with resumable():
            summary = run_job(
                model,
                rows,
                prompts,
                output,
                artifact=model.artifact.identity,
                tiles=str(model.tiles),
                choices=None if choices is None else [c.strip() for c in choices.split(",")],
                max_new_tokens=max_new_tokens,
                retry_errors=retry_errors,
            )
        for line in _picture_lines(summary):
            report(Note(line))
    if as_json:
        print_json(
            {
                "output": str(output),
                "rows": summary.rows,
                "answers": summary.answers,
                "errors": summary.errors,
                "resumed": summary.resumed,
                "seconds": round(summary.seconds, 3),
                "left_out": dict(summary.left_out),
                "rotation_ignored": summary.rotation_ignored,
                "clipped_to_8_bits": summary.clipped_to_8_bits,
            }
        )
    else:
        resumed = f", {summary.resumed:,} of them from an earlier run" if summary.resumed else ""
        click.echo(
            f"{counted(summary.answers, 'answer')}, {counted(summary.errors, 'error')} for "
            f"{counted(summary.rows, 'row')} in {summary.seconds:.1f} s{resumed}",
            err=True,
        )
        click.echo(output)


def _picture_lines(summary: JobSummary) -> Iterator[str]:
    """What the user should know of the input's pictures."""
    from vlmc.jobs.input.image_files import kinds_text

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
