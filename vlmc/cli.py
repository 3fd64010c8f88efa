"""The command line. Bodies import what they need when they run, so that `--help` is quick."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

import vlmc
from vlmc import artifact_commands
from vlmc.command import (
    build_extra,
    json_option,
    print_artifact,
    print_json,
    reporting_errors,
    resumable,
    say,
)
from vlmc.errors import AccuracyError, UsageError
from vlmc.verify_commands import verify

if TYPE_CHECKING:
    from vlmc.runtime.model import Model


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(vlmc.__version__, prog_name="vlmc")
def main() -> None:
    """Compile InternVL2 checkpoints, and answer questions about images with the result."""


main.add_command(verify)
for command in artifact_commands.COMMANDS:
    main.add_command(command)


@main.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "--image-size",
    "sizes",
    multiple=True,
    metavar="WIDTHxHEIGHT",
    help="An image's size in pixels, such as 480x320; repeatable. Without it, a few usual ones.",
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key.")
@json_option
@reporting_errors
def plan(recipe: Path, sizes: tuple[str, ...], overrides: tuple[str, ...], as_json: bool) -> None:
    """Tell what a build of RECIPE would do, take and become; touches nothing.

    Steps with what is cached and what changed, tiles and tokens of images, memory, disk and time.
    """
    with build_extra():
        from vlmc.build.cache import StepCache
        from vlmc.build.plan import USUAL_SIZES, make_plan, parse_size
        from vlmc.build.plan_json import plan_json
        from vlmc.recipe.read import read_recipe
    chosen = [parse_size(size) for size in sizes] or USUAL_SIZES
    made = make_plan(read_recipe(recipe, overrides), StepCache(), chosen)
    if as_json:
        print_json(plan_json(made))
    else:
        from vlmc.build.plan_view import show_plan

        show_plan(made)


@main.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The artifact's folder, to be made."
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key.")
@click.option(
    "--steps",
    metavar="A,B",
    help="Only bring these into the cache, for a build elsewhere: vision, language.weights, ...",
)
@click.option(
    "--force", multiple=True, metavar="STEP", help="Make a step anew though it is cached."
)
@json_option
@reporting_errors
def build(
    recipe: Path,
    output: Path | None,
    overrides: tuple[str, ...],
    steps: str | None,
    force: tuple[str, ...],
    as_json: bool,
) -> None:
    """Build the artifact that RECIPE describes, and print its folder.

    Without -o it becomes artifacts/NAME-ID, and the link artifacts/NAME is moved to it. Finished
    steps are cached, so an interrupted build goes on where it was.
    """
    if steps is not None and output is not None:
        raise UsageError("--steps builds no artifact, so there is no place for -o; leave one out")
    with build_extra():
        from vlmc.build.build import build as build_artifact
        from vlmc.build.build import build_steps
        from vlmc.build.progress import BuildProgress
        from vlmc.recipe.read import read_recipe
    read = read_recipe(recipe, overrides)
    if steps is not None:
        names = [name.strip() for name in steps.split(",")]
        with resumable(), BuildProgress() as progress:
            outcomes = build_steps(read, names, progress.report, force=force)
        if as_json:
            print_json({"steps": [outcome.plain() for outcome in outcomes]})
        else:
            for outcome in outcomes:
                click.echo(f"{outcome.step.name} {outcome.entry.key}")
        return
    with resumable(), BuildProgress() as progress:
        folder = build_artifact(read, output, progress.report, force=force)
    print_artifact(folder, as_json)


@main.command()
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
    from vlmc.jobs.inputs import open_input
    from vlmc.jobs.job import run_job
    from vlmc.jobs.prompts import prompts_from_file, prompts_from_texts
    from vlmc.progress import JobProgress

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


@main.group()
def cache() -> None:
    """The cache of build steps, in $VLMC_CACHE or ~/.cache/vlmc/build."""


@cache.command("list")
@json_option
@reporting_errors
def list_cache(as_json: bool) -> None:
    """Print the finished steps, the newest first: name, key, size, seconds, age."""
    from vlmc.build.cache import StepCache
    from vlmc.build.cache_table import cache_json, cache_lines

    found = StepCache()
    if as_json:
        print_json(cache_json(found))
    else:
        click.echo("\n".join(cache_lines(found)))


@cache.command("prune")
@click.option(
    "--unused-days",
    default=30.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Remove what no build took for so long; 0 removes all.",
)
@click.option(
    "--max-gib", type=click.FloatRange(min=0), help="Then the longest unused until so much is left."
)
@json_option
@reporting_errors
def prune_cache(unused_days: float, max_gib: float | None, as_json: bool) -> None:
    """Remove old steps, damaged ones, and what killed builds left; nothing that is in use."""
    from vlmc.build.cache import StepCache
    from vlmc.build.prune import prune

    max_bytes = None if max_gib is None else int(max_gib * (1 << 30))
    pruned = prune(StepCache(), unused_days=unused_days, max_bytes=max_bytes)
    if as_json:
        print_json(pruned.plain())
    else:
        click.echo(
            f"{len(pruned.entries)} steps removed, {pruned.bytes:,} bytes; {len(pruned.damaged)} "
            f"damaged and {pruned.leftovers} unfinished ones removed; {pruned.kept} kept"
        )


def _accuracy_in_use(model: Model) -> tuple[str, tuple[str, ...]]:
    """The status of the engine and tile rule in use, and what is to be said of the reports."""
    from vlmc.artifact.accuracy import read_accuracy

    artifact = model.artifact
    found = read_accuracy(artifact.folder, artifact.identity)
    if model.tiles != artifact.manifest.image.tiles:
        return f"unverified, as the artifact's tile rule is {artifact.manifest.image.tiles}", ()
    return found.status(model.chosen), found.ignored
