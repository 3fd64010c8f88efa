"""The commands about finished artifacts, and the machine that is to run them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import click

from vlmc.cli.options import (
    json_option,
    print_json,
    reporting_errors,
)


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path), required=False)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N.")
@json_option
@reporting_errors
def doctor(artifact: Path | None, device: str, as_json: bool) -> None:
    """Tell what this machine can run: driver, GPUs, packages.

    With ARTIFACT: which of its engines is taken here and why not the others, and whether it
    computes the golden features. Ends with 5 where none can be used.
    """
    from vlmc.runtime.doctor import examine

    diagnosis = examine(artifact, device)
    if as_json:
        print_json(diagnosis.to_json())
    else:
        click.echo("\n".join(diagnosis.lines()))
    sys.exit(diagnosis.exit_code)


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@json_option
@reporting_errors
def inspect(artifact: Path, as_json: bool) -> None:
    """Tell what ARTIFACT holds: manifest, engines, sizes, accuracy status. Hashes nothing."""
    from vlmc.artifact.summary import summarize

    summary = summarize(artifact)
    if as_json:
        print_json(summary.to_json())
    else:
        click.echo("\n".join(summary.lines()))


@click.command("export")
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "layout",
    required=True,
    type=click.Choice(["awq", "gptq"]),
    help="AWQ's GEMM layout, or GPTQ's without act-order.",
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="The folder to be made.",
)
@json_option
@reporting_errors
def export_weights(
    artifact: Path, layout: Literal["awq", "gptq"], output: Path, as_json: bool
) -> None:
    """Write the 4-bit language model of ARTIFACT, the same integers, for other engines to read."""
    from vlmc.artifact.integrity import open_artifact
    from vlmc.export.awq_gptq import export

    export(open_artifact(artifact), layout, output)
    if as_json:
        print_json({"folder": str(output), "format": layout})
    else:
        click.echo(output)


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@click.option(
    "--key",
    required=True,
    type=click.Path(path_type=Path),
    help="PEM file of an Ed25519 private key: openssl genpkey -algorithm ed25519 -out key.pem",
)
@json_option
@reporting_errors
def sign(artifact: Path, key: Path, as_json: bool) -> None:
    """Check ARTIFACT, sign its identity, and print where the signature lies in it."""
    from vlmc.artifact.integrity import open_artifact
    from vlmc.artifact.signature import sign as sign_artifact

    opened = open_artifact(artifact)
    path = sign_artifact(opened, key)
    if as_json:
        print_json({"signature": str(path), "identity": opened.identity})
    else:
        click.echo(path)
