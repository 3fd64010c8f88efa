"""The commands under `vlmc verify`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vlmc.cli.accuracy_modes import print_comparison, print_thresholds
from vlmc.cli.options import (
    PATH,
    artifact_argument,
    build_extra,
    counted,
    devices_option,
    engine_option,
    json_option,
    print_json,
    recipe_argument,
    refuse_beside,
    reporting_errors,
)
from vlmc.errors import AccuracyError, UsageError

if TYPE_CHECKING:
    from vlmc.verify.report import Verified

_GOLDEN_TILES = 8  # as in every artifact
_LAYER_TILES = 2  # a dark one and one of contrast


sweep_option = click.option(
    "--sweep",
    "sweeps",
    multiple=True,
    metavar="NAME=VALUES",
    help="Also ask with each of these: tiles=1,2,4 (the most tiles of an image) or keep=1,0.5 (the "
    "share of image tokens kept), and show recall against tokens and speed; repeatable.",
)


@click.group()
def verify() -> None:
    """Check the integrity or accuracy of an artifact."""


@verify.command()
@artifact_argument
@click.option(
    "--public-key",
    type=PATH,
    help="PEM file of an Ed25519 public key; require a valid signature by that key.",
)
@json_option
@reporting_errors
def integrity(artifact: Path, public_key: Path | None, as_json: bool) -> None:
    """Check every file of ARTIFACT against its manifest, and its signature with a key."""
    from vlmc.artifact.identity import NOT_RECORDED, is_recorded
    from vlmc.artifact.integrity import open_artifact
    from vlmc.artifact.signature import check_signature

    opened = open_artifact(artifact)
    if public_key is not None:
        check_signature(opened, public_key)
    sizes = [entry.size for entry in opened.manifest.payload.values()]
    if as_json:
        print_json(
            {
                "artifact": str(opened.folder),
                "identity": opened.identity,
                "identity_recorded": is_recorded(opened.folder),
                "files": len(sizes),
                "bytes": sum(sizes),
                "signature": None if public_key is None else "valid",
            }
        )
    else:
        signed = "" if public_key is None else f", signed with the key of {public_key}"
        click.echo(
            f"{opened.folder}: {counted(len(sizes), 'file')}, {sum(sizes):,} bytes, match the "
            f"manifest; identity {opened.identity}{signed}"
        )
        if not is_recorded(opened.folder):
            click.echo(f"identity {NOT_RECORDED}", err=True)


@verify.command()
@recipe_argument
@click.option("-o", "--output", type=PATH, help="The file to write.")
@sweep_option
@json_option
@reporting_errors
def reference(recipe: Path, output: Path | None, sweeps: tuple[str, ...], as_json: bool) -> None:
    """Record the source model's results on the accuracy.dataset of RECIPE.

    Run it on a machine where the source model fits. The file holds pixels, features and answers by
    image content; pass it to `vlmc verify accuracy --reference` on any machine. --sweep shows what
    fewer image tokens cost before anything is built, with -o or without.
    """
    if output is None and not sweeps:
        raise UsageError("there is nothing to do; name a file with -o, or what to --sweep")
    with build_extra():
        from vlmc.builder.steps.recipe_steps import source_files
        from vlmc.recipe.read import read_recipe
        from vlmc.recipe.resolve import resolve
    from vlmc.checkpoint.source import open_checkpoint
    from vlmc.cli.views.progress import show_progress
    from vlmc.verify.reference import ImageMaking
    from vlmc.verify.sweep import parse_sweeps, sweep_lines
    from vlmc.verify.verification import make_reference_file

    read = read_recipe(recipe)
    dataset = read.accuracy.dataset
    if dataset is None:
        raise UsageError(
            f"{recipe} has no accuracy.dataset. Set it to a file of questions, as JSON lines of "
            '{"image", "prompt", "label"}'
        )
    folder = Path(read.model.checkpoint)
    with open_checkpoint(folder) as checkpoint:
        resolved = resolve(read, checkpoint.config)
    settings = parse_sweeps(sweeps)
    with show_progress():
        made, points = make_reference_file(
            folder,
            source_files(folder),
            resolved.prompt_rules,
            ImageMaking(
                resolved.tiles,
                read.image.resampler,
                read.image.exif,
                read.image.high_bit_depth,
            ),
            Path(dataset),
            read.accuracy,
            output,
            settings,
        )
    if as_json:
        print_json(
            {
                "reference": None if output is None else str(output),
                "dataset": made.dataset,
                "answers": len(made.answers),
                "images": len(made.grids),
                "tiles": len(made.places),
                "language_dtype": made.dtype,
                "device": made.device,
                "sweep": [asdict(point) for point in points],
            }
        )
    else:
        for line in sweep_lines(points):
            click.echo(line)
        if output is not None:
            click.echo(output)


@verify.command()
@artifact_argument
@click.option(
    "--source",
    type=PATH,
    help="The checkpoint to compare with; the default is the one that was built.",
)
@click.option(
    "--reference",
    type=PATH,
    help="A file of `vlmc verify reference` to compare with instead of a checkpoint.",
)
@devices_option
@engine_option
@click.option(
    "--dataset",
    type=PATH,
    help="JSON lines of image, prompt, label; the default is the recipe's accuracy.dataset.",
)
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=1),
    help="Check only the first N questions; a limited run can fail but never pass.",
)
@click.option(
    "--strict", is_flag=True, help="Fail also where the questions are too few to support a verdict."
)
@click.option(
    "--explain",
    is_flag=True,
    help="Find the level at which each disagreement arises, and the part of the artifact at which "
    "agreement falls most.",
)
@sweep_option
@click.option(
    "--against",
    type=PATH,
    metavar="ARTIFACT",
    help="Compare with another artifact instead of the source, question by question; the result "
    "is printed only.",
)
@click.option(
    "--min-recall",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Find the score threshold of each question that reaches this recall, instead of comparing "
    "with the source; needs --choices and -o.",
)
@click.option("--choices", metavar="A,B", help="The answers that are scored for --min-recall.")
@click.option(
    "-o",
    "--output",
    type=PATH,
    metavar="FILE",
    help="The file of thresholds for `vlmc run --threshold`.",
)
@json_option
@reporting_errors
def accuracy(
    artifact: Path,
    source: Path | None,
    reference: Path | None,
    devices: int,
    engine: str | None,
    dataset: Path | None,
    limit: int | None,
    strict: bool,
    explain: bool,
    sweeps: tuple[str, ...],
    against: Path | None,
    min_recall: float | None,
    choices: str | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Compare ARTIFACT with its source: pixels, features, answers.

    The thresholds of the recipe decide. The result is stored in the reports of ARTIFACT, where
    `vlmc run` and `vlmc inspect` read it.
    """
    shared = {"--devices": devices > 1}
    if min_recall is not None:
        compared = {"--source": source, "--reference": reference, "--against": against}
        others = {"--strict": strict, "--explain": explain, "--limit": limit, "--sweep": sweeps}
        refuse_beside("--min-recall", {**compared, **others, **shared})
        print_thresholds(artifact, min_recall, choices, output, engine, dataset, as_json)
        return
    if choices is not None or output is not None:
        raise UsageError("--choices and -o are for --min-recall; add it, or leave them out")
    if against is not None:
        given = {"--source": source, "--reference": reference, **shared}
        refuse_beside(
            "--against", given | {"--strict": strict, "--explain": explain, "--sweep": sweeps}
        )
        print_comparison(artifact, against, engine, dataset, limit, as_json)
        return
    with build_extra():
        from vlmc.verify.sweep import parse_sweeps
        from vlmc.verify.verification import verify_accuracy
    from vlmc.cli.views.progress import show_progress

    with show_progress():
        verified = verify_accuracy(
            artifact,
            source=source,
            reference=reference,
            engine=engine,
            dataset=dataset,
            limit=limit,
            explain=explain,
            settings=parse_sweeps(sweeps),
            devices=devices,
        )
    path, page = verified.keep()
    if as_json:
        kept = {"report": str(path), "page": str(page), "status": verified.status}
        print_json({**kept, **verified.to_json()})
    else:
        for line in verified.lines():
            click.echo(line)
        limit = verified.dataset.limit
        if limit is not None and not verified.checked.failed:
            click.echo("a limited run never passes; leave --limit out to verify the artifact")
        click.echo(f"page        {page}")
        click.echo(f"{verified.status}  {path}")
    _refuse_inaccurate(verified, strict)


@verify.command()
@artifact_argument
@click.option(
    "--layers", is_flag=True, help="Compare every tensor of the graph, to find where it diverges."
)
@click.option(
    "--source",
    type=PATH,
    help="With --layers: the checkpoint to take the fp32 tower from; the default is the "
    "artifact's own copy.",
)
@engine_option
@click.option(
    "--tiles",
    metavar="N",
    type=click.IntRange(min=1, max=_GOLDEN_TILES),
    help=f"The number of golden tiles to run; the default is {_GOLDEN_TILES}, and with --layers "
    f"{_LAYER_TILES}.",
)
@json_option
@reporting_errors
def features(
    artifact: Path,
    layers: bool,
    source: Path | None,
    engine: str | None,
    tiles: int | None,
    as_json: bool,
) -> None:
    """Compare the vision features of ARTIFACT with those of the fp32 tower.

    The golden tiles of ARTIFACT are the input, so it needs no data. With --layers the graph runs
    on ONNX Runtime, and on TensorRT where it is installed; the result names the first layer that
    diverges and the worst tensors.
    """
    from vlmc.cli.views.progress import show_progress

    if not layers and source is not None:
        raise UsageError(
            "--source selects the fp32 tower of --layers; add --layers or leave it out"
        )
    with build_extra():
        from vlmc.compile.vision import write_fp32_graph
        from vlmc.verify.golden_features import verify_golden_features
        from vlmc.verify.layers.verify import verify_layers
    with show_progress():
        result = (
            verify_layers(
                artifact,
                write_fp32_graph,
                source=source,
                engine=engine,
                tiles=tiles or _LAYER_TILES,
            )
            if layers
            else verify_golden_features(artifact, engine=engine, tiles=tiles or _GOLDEN_TILES)
        )
    if as_json:
        print_json(result.to_json())
    else:
        click.echo("\n".join(result.lines()))
    if result.failure is not None:
        raise AccuracyError(result.failure)


def _refuse_inaccurate(verified: Verified, strict: bool) -> None:
    checked = verified.checked
    if checked.failed:
        raise AccuracyError("\n".join(["the artifact is not accurate enough:", *checked.reasons()]))
    if strict and checked.underpowered:
        weak = "; ".join(verdict.line() for verdict in checked.underpowered)
        raise AccuracyError(
            f"the questions are too few to support a threshold, and --strict needs enough: {weak}"
        )
