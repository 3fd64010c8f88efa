"""The commands under `vlmc verify`. Bodies import what they need when they run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vlmc.cli.options import build_extra, json_option, print_json, reporting_errors
from vlmc.errors import AccuracyError, UsageError

if TYPE_CHECKING:
    from vlmc.verify.report import Verified


@click.group()
def verify() -> None:
    """Check an artifact."""


@verify.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "--public-key",
    type=click.Path(path_type=Path),
    help="PEM file of the Ed25519 key that must have signed the artifact.",
)
@json_option
@reporting_errors
def integrity(artifact: Path, public_key: Path | None, as_json: bool) -> None:
    """Check every file of ARTIFACT against its manifest, and its signature if a key is given."""
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
                "files": len(sizes),
                "bytes": sum(sizes),
                "signature": None if public_key is None else "valid",
            }
        )
    else:
        signed = "" if public_key is None else f", signed with the key of {public_key}"
        click.echo(
            f"{opened.folder}: {len(sizes)} files of {sum(sizes):,} bytes are what the manifest "
            f"says; identity {opened.identity}{signed}"
        )


@verify.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="The file to write."
)
@json_option
@reporting_errors
def reference(recipe: Path, output: Path, as_json: bool) -> None:
    """Run the source model of RECIPE on its accuracy.dataset, where it fits.

    The file holds pixels, features and answers by the images' content, so that `vlmc verify
    accuracy --reference` takes it on any machine.
    """
    with build_extra():
        from vlmc.builder.steps.recipe_steps import source_files
        from vlmc.recipe.read import read_recipe
        from vlmc.recipe.resolve import resolve
    from vlmc.checkpoint.source import open_checkpoint
    from vlmc.cli.views.progress_bars import StageProgress
    from vlmc.verify.reference import ImageMaking
    from vlmc.verify.verification import make_reference_file

    read = read_recipe(recipe)
    dataset = read.accuracy.dataset
    if dataset is None:
        raise UsageError(
            f"{recipe} has no accuracy.dataset, the questions to ask: a file of JSON lines "
            '{"image", "prompt", "label"}'
        )
    folder = Path(read.model.checkpoint)
    with open_checkpoint(folder) as checkpoint:
        resolved = resolve(read, checkpoint.config)
    with StageProgress() as progress:
        made = make_reference_file(
            folder,
            source_files(folder),
            resolved.prompt_rules,
            ImageMaking(resolved.tiles, read.image.resampler, read.image.exif),
            Path(dataset),
            read.accuracy.reference_dtype,
            output,
            progress.show,
        )
    if as_json:
        print_json(
            {
                "reference": str(output),
                "dataset": made.dataset,
                "answers": len(made.answers),
                "images": len(made.grids),
                "tiles": len(made.places),
                "language_dtype": made.dtype,
                "device": made.device,
            }
        )
    else:
        click.echo(output)


@verify.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "--source",
    type=click.Path(path_type=Path),
    help="The checkpoint to compare with; without it, the one that the build read.",
)
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    help="What `vlmc verify reference` wrote, in place of a source.",
)
@click.option(
    "--engine",
    metavar="NAME",
    help="The engine to check, not the first that fits: onnxruntime checks the bundled graph.",
)
@click.option(
    "--dataset",
    type=click.Path(path_type=Path),
    help="JSON lines of image, prompt, label; without it, the recipe's accuracy.dataset.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="Ask the first so many questions only, which can fail and not pass.",
)
@click.option("--strict", is_flag=True, help="Fail where the questions are too few to tell, too.")
@click.option("--explain", is_flag=True, help="Tell at which level each disagreement arises.")
@json_option
@reporting_errors
def accuracy(
    artifact: Path,
    source: Path | None,
    reference: Path | None,
    engine: str | None,
    dataset: Path | None,
    limit: int | None,
    strict: bool,
    explain: bool,
    as_json: bool,
) -> None:
    """Compare ARTIFACT with its source: pixels, features, answers; the recipe's thresholds decide.

    The result is kept in the artifact's reports, where `vlmc run` and `vlmc inspect` find it.
    """
    with build_extra():
        from vlmc.verify.verification import verify_accuracy
    from vlmc.cli.views.progress_bars import StageProgress

    with StageProgress() as progress:
        verified = verify_accuracy(
            artifact,
            progress.show,
            source=source,
            reference=reference,
            engine=engine,
            dataset=dataset,
            limit=limit,
            explain=explain,
        )
    path = verified.keep()
    if as_json:
        print_json({"report": str(path), "status": verified.status, **verified.to_json()})
    else:
        for line in verified.lines():
            click.echo(line)
        asked = verified.dataset.limit
        if asked is not None and not verified.checked.failed:
            click.echo(f"the first {asked} questions alone verify nothing: ask all of them")
        click.echo(f"{verified.status}  {path}")
    _refuse_inaccurate(verified, strict)


def _refuse_inaccurate(verified: Verified, strict: bool) -> None:
    checked = verified.checked
    if checked.failed:
        raise AccuracyError("\n".join(["the artifact is not accurate enough:", *checked.reasons()]))
    if strict and checked.underpowered:
        weak = "; ".join(verdict.line() for verdict in checked.underpowered)
        raise AccuracyError(
            f"there are too few questions to support a threshold, and --strict was given: {weak}"
        )
