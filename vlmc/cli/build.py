"""The commands that build artifacts: plan, build, rebuild, and the build cache."""

from __future__ import annotations

from pathlib import Path

import click

from vlmc.cli.options import (
    artifact_argument,
    artifact_folder_option,
    build_extra,
    counted,
    json_option,
    print_artifact,
    print_json,
    recipe_argument,
    reporting_errors,
    resumable,
    set_option,
)
from vlmc.errors import UsageError


@click.command()
@recipe_argument
@click.option(
    "--image-size",
    "sizes",
    multiple=True,
    metavar="WIDTHxHEIGHT",
    help="An image size in pixels, such as 480x320; repeatable. The default is a few common sizes.",
)
@set_option
@json_option
@reporting_errors
def plan(recipe: Path, sizes: tuple[str, ...], overrides: tuple[str, ...], as_json: bool) -> None:
    """Preview a build: steps, time, memory, disk.

    Shows which steps of RECIPE are cached and what changed in the others, and the tiles and tokens
    of images. Changes nothing and needs no GPU.
    """
    with build_extra():
        from vlmc.builder.plan.plan import USUAL_SIZES, make_plan, parse_size
        from vlmc.builder.plan.plan_json import plan_json
        from vlmc.builder.store.step_cache import StepCache
        from vlmc.recipe.read import read_recipe
    chosen = [parse_size(size) for size in sizes] or USUAL_SIZES
    made = make_plan(read_recipe(recipe, overrides), StepCache(), chosen)
    if as_json:
        print_json(plan_json(made))
    else:
        from vlmc.cli.views.plan import show_plan

        show_plan(made)


@click.command()
@recipe_argument
@artifact_folder_option
@set_option
@click.option(
    "--steps",
    metavar="A,B",
    help="Run only these steps, into the cache, for a build elsewhere: vision, "
    "language.weights, ...",
)
@click.option(
    "--force", multiple=True, metavar="STEP", help="Rerun a step even if cached; repeatable."
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
    """Build the artifact of RECIPE and print its folder.

    Without -o the folder is artifacts/NAME-ID, and the link artifacts/NAME points to it. Finished
    steps are cached: the same command resumes an interrupted build.
    """
    if steps is not None and output is not None:
        raise UsageError(
            "--steps and -o are both given, and --steps builds no artifact; leave one out"
        )
    with build_extra():
        from vlmc.builder.build import build as build_artifact
        from vlmc.builder.build import build_steps
        from vlmc.cli.views.progress import show_progress
        from vlmc.recipe.read import read_recipe
    read = read_recipe(recipe, overrides)
    if steps is not None:
        names = [name.strip() for name in steps.split(",")]
        with resumable(), show_progress():
            outcomes = build_steps(read, names, force=force)
        if as_json:
            print_json({"steps": [outcome.to_json() for outcome in outcomes]})
        else:
            for outcome in outcomes:
                click.echo(f"{outcome.step.name} {outcome.entry.key}")
        return
    with resumable(), show_progress():
        folder = build_artifact(read, output, force=force)
    print_artifact(folder, as_json)


@click.command()
@artifact_argument
@click.option(
    "--engine",
    required=True,
    metavar="NAME",
    help="The engine to build: tensorrt, tensorrt-rtx or inductor.",
)
@click.option(
    "--target",
    "targets",
    required=True,
    multiple=True,
    metavar="SM",
    help="The compute capability of the GPU, such as sm89; repeatable.",
)
@artifact_folder_option
@json_option
@reporting_errors
def rebuild(
    artifact: Path, engine: str, targets: tuple[str, ...], output: Path | None, as_json: bool
) -> None:
    """Build engines for other GPUs from ARTIFACT, as a new artifact.

    Needs no source checkpoint. The new artifact keeps the graph for the CPU and drops the other
    engines. Prints its folder, which is NAME-ID beside ARTIFACT without -o.
    """
    with build_extra():
        from vlmc.builder.rebuild import engine_named
        from vlmc.builder.rebuild import rebuild as rebuild_artifact
        from vlmc.cli.views.progress import show_progress
    name = engine_named(engine)
    with resumable(), show_progress():
        folder = rebuild_artifact(artifact, name, targets, output)
    print_artifact(folder, as_json)


@click.group()
def cache() -> None:
    """Manage the build cache, in $VLMC_CACHE or ~/.cache/vlmc/build."""


@cache.command("list")
@json_option
@reporting_errors
def list_cache(as_json: bool) -> None:
    """List the cached steps, newest first: name, key, size, seconds, age."""
    from vlmc.builder.store.listing import cache_json, cache_lines
    from vlmc.builder.store.step_cache import StepCache

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
    help="Remove steps that no build has used for this long; 0 removes all.",
)
@click.option(
    "--max-gib",
    type=click.FloatRange(min=0),
    help="Then remove the least recently used steps until the cache is at most this large.",
)
@json_option
@reporting_errors
def prune_cache(unused_days: float, max_gib: float | None, as_json: bool) -> None:
    """Remove old and damaged steps, and leftovers of killed builds; never steps in use."""
    from vlmc.builder.store.prune import prune
    from vlmc.builder.store.step_cache import StepCache

    max_bytes = None if max_gib is None else int(max_gib * (1 << 30))
    pruned = prune(StepCache(), unused_days=unused_days, max_bytes=max_bytes)
    if as_json:
        print_json(pruned.to_json())
    else:
        click.echo(
            f"removed {counted(len(pruned.entries), 'step')}, {pruned.bytes:,} bytes, besides "
            f"{len(pruned.damaged)} damaged and {pruned.leftovers} unfinished; kept {pruned.kept}"
        )
