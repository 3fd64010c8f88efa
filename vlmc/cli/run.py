"""The command that runs a job: every question of every image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vlmc.cli.options import (
    json_option,
    print_json,
    reporting_errors,
    resumable,
    say,
)
from vlmc.errors import AccuracyError, UsageError

if TYPE_CHECKING:
    from vlmc.runtime.model import Model


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.argument("source", metavar="INPUT")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Answers: .jsonl or .parquet. An unfinished job is taken up again.",
)
@click.option("--prompt", "texts", multiple=True, metavar="TEXT", help="A question; repeatable.")
@click.option(
    "--prompts",
    "file",
    type=click.Path(path_type=Path),
    help="Questions: one a line, or JSON lines with `question` and `prompt`.",
)
@click.option("--choices", metavar="A,B", help="Score these answers instead of generating one.")
@click.option("--max-new-tokens", default=5, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--tiles",
    metavar="RULE",
    help="Another tile rule than the artifact's: original, native:max=4, single.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N.")
@click.option(
    "--engine",
    metavar="NAME",
    help="The vision engine, not the first that fits: onnxruntime runs the graph on the CPU.",
)
@click.option("--retry-errors", is_flag=True, help="Ask again where the output holds an error.")
@click.option(
    "--require-verified",
    is_flag=True,
    help="Refuse to run but what `vlmc verify accuracy` has passed: the engine, and the tile rule.",
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
    """Ask every question of every image of INPUT: a folder, a glob, a .jsonl or .parquet file.

    OUTPUT has a line for each image and question: row, image, question, prompt, answer, scores,
    image_tokens, error, and the input's other columns.
    """
    from vlmc.cli.views.progress_bars import JobProgress
    from vlmc.jobs.input.open import open_input
    from vlmc.jobs.input.prompts import prompts_from_file, prompts_from_texts
    from vlmc.jobs.job import run_job

    if texts and file is not None:
        raise UsageError("--prompt and --prompts are both given; put all questions in the file")
    rows = open_input(source)
    prompts = prompts_from_file(file) if file is not None else prompts_from_texts(texts)

    from vlmc.runtime.load import load

    with load(artifact, device=device, tiles=tiles, engine=engine) as model:
        status, reasons = _accuracy_in_use(model)
        say(f"{artifact}: {model.engine}, tiles {model.tiles}, accuracy {status}")
        for reason in reasons:
            say(reason)
        if require_verified and status != "passed":
            raise AccuracyError(
                f"the accuracy of {artifact} with {model.engine} and tiles {model.tiles} is "
                f"{status}, and --require-verified was given. Run `vlmc verify accuracy "
                f"{artifact}` on this machine first, or leave the option out."
            )
        with resumable(), JobProgress() as progress:
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
                progress=progress.show,
            )
    if as_json:
        print_json(
            {
                "output": str(output),
                "rows": summary.rows,
                "answers": summary.answers,
                "errors": summary.errors,
                "resumed": summary.resumed,
                "seconds": round(summary.seconds, 3),
            }
        )
    else:
        say(
            f"{summary.answers} answers and {summary.errors} errors for {summary.rows} rows in "
            f"{summary.seconds:.1f} s ({summary.resumed} were there before)"
        )
        click.echo(output)


def _accuracy_in_use(model: Model) -> tuple[str, tuple[str, ...]]:
    """The status of the engine and tile rule in use, and what is to be said of the reports."""
    from vlmc.artifact.accuracy_status import read_accuracy

    artifact = model.artifact
    found = read_accuracy(artifact.folder, artifact.identity)
    if model.tiles != artifact.manifest.image.tiles:
        return f"unverified, as the artifact's tile rule is {artifact.manifest.image.tiles}", ()
    return found.status(model.chosen), found.ignored
