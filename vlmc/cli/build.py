"""The commands that make artifacts: plan, build, rebuild, and the cache of steps."""

from __future__ import annotations

from pathlib import Path

import click

from vlmc.cli.options import (
    build_extra,
    json_option,
    print_artifact,
    print_json,
    reporting_errors,
    resumable,
)
from vlmc.errors import UsageError


@click.command()
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
        from vlmc.builder.build import build as build_artifact
        from vlmc.builder.build import build_steps
        from vlmc.cli.views.build_progress import BuildProgress
        from vlmc.recipe.read import read_recipe
    read = read_recipe(recipe, overrides)
    if steps is not None:
        names = [name.strip() for name in steps.split(",")]
        with resumable(), BuildProgress() as progress:
            outcomes = build_steps(read, names, progress.report, force=force)
        if as_json:
            print_json({"steps": [outcome.to_json() for outcome in outcomes]})
        else:
            for outcome in outcomes:
                click.echo(f"{outcome.step.name} {outcome.entry.key}")
        return
    with resumable(), BuildProgress() as progress:
        folder = build_artifact(read, output, progress.report, force=force)
    print_artifact(folder, as_json)


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option("--engine", required=True, help="tensorrt-rtx or tensorrt.")
@click.option(
    "--target",
    "targets",
    required=True,
    multiple=True,
    metavar="SM",
    help="The card, by its compute capability: sm89; repeatable.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The artifact's folder, to be made."
)
@json_option
@reporting_errors
def rebuild(
    artifact: Path, engine: str, targets: tuple[str, ...], output: Path | None, as_json: bool
) -> None:
    """Build a new artifact with an engine for other cards from what ARTIFACT holds.

    The source checkpoint is not needed. Engines for other cards are left out, the graph for the
    CPU stays. Prints the new artifact's folder, without -o NAME-ID beside ARTIFACT.
    """
    with build_extra():
        from vlmc.builder.rebuild import engine_named
        from vlmc.builder.rebuild import rebuild as rebuild_artifact
        from vlmc.cli.views.build_progress import BuildProgress
    name = engine_named(engine)
    with resumable(), BuildProgress() as progress:
        folder = rebuild_artifact(artifact, name, targets, output, progress.report)
    print_artifact(folder, as_json)


@click.group()
def cache() -> None:
    """The cache of build steps, in $VLMC_CACHE or ~/.cache/vlmc/build."""


@cache.command("list")
@json_option
@reporting_errors
def list_cache(as_json: bool) -> None:
    """Print the finished steps, the newest first: name, key, size, seconds, age."""
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
    help="Remove what no build took for so long; 0 removes all.",
)
@click.option(
    "--max-gib", type=click.FloatRange(min=0), help="Then the longest unused until so much is left."
)
@json_option
@reporting_errors
def prune_cache(unused_days: float, max_gib: float | None, as_json: bool) -> None:
    """Remove old steps, damaged ones, and what killed builds left; nothing that is in use."""
    from vlmc.builder.store.prune import prune
    from vlmc.builder.store.step_cache import StepCache

    max_bytes = None if max_gib is None else int(max_gib * (1 << 30))
    pruned = prune(StepCache(), unused_days=unused_days, max_bytes=max_bytes)
    if as_json:
        print_json(pruned.to_json())
    else:
        click.echo(
            f"{len(pruned.entries)} steps removed, {pruned.bytes:,} bytes; {len(pruned.damaged)} "
            f"damaged and {pruned.leftovers} unfinished ones removed; {pruned.kept} kept"
        )
