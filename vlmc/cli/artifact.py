"""The commands about finished artifacts and the machine that runs them."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Literal, cast

import click

from vlmc.cli.options import (
    PATH,
    artifact_argument,
    build_extra,
    device_option,
    json_option,
    print_json,
    reporting_errors,
)


@click.command()
@click.argument("artifact", type=PATH, required=False)
@device_option
@json_option
@reporting_errors
def doctor(artifact: Path | None, device: str, as_json: bool) -> None:
    """Show what this machine can run: driver, GPUs, packages.

    With ARTIFACT: which of its engines runs here, why the others do not, and the result of the
    self-test. The exit code is 5 if no engine can run.
    """
    from vlmc.runtime.doctor import examine

    diagnosis = examine(artifact, device)
    if as_json:
        print_json(diagnosis.to_json())
    else:
        click.echo("\n".join(diagnosis.lines()))
    sys.exit(diagnosis.exit_code)


@click.command()
@artifact_argument
@click.option(
    "--layers",
    is_flag=True,
    help="List the layers of TensorRT plans too, from the engine inspector; needs their package "
    "and GPU.",
)
@json_option
@reporting_errors
def inspect(artifact: Path, layers: bool, as_json: bool) -> None:
    """Show the contents of ARTIFACT: manifest, engines, sizes, accuracy status.

    Checks no hashes without --layers; `vlmc verify integrity` does.
    """
    from vlmc.artifact.summary import summarize

    summary = summarize(artifact)
    plans = []
    if layers:
        with build_extra():
            from vlmc.artifact.plan_layers import inspect_plans

            plans = inspect_plans(artifact)
    if as_json:
        values = summary.to_json()
        print_json(values | {"plans": [asdict(plan) for plan in plans]} if layers else values)
    else:
        click.echo("\n".join([*summary.lines(), *(plan.text() for plan in plans)]))
        if layers and not plans:
            click.echo("layers      no TensorRT plans")


@click.command("export")
@artifact_argument
@click.option(
    "--to",
    "--format",
    "target",
    required=True,
    type=click.Choice(["hf", "vllm", "sglang", "lmdeploy", "awq", "gptq"]),
    help="The whole model for transformers (hf), vLLM, SGLang or LMDeploy; or its 4-bit language "
    "model alone in AWQ's GEMM layout or in GPTQ's without act-order.",
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=PATH,
    help="The folder to create.",
)
@json_option
@reporting_errors
def export_weights(artifact: Path, target: str, output: Path, as_json: bool) -> None:
    """Export the weights of ARTIFACT as a checkpoint that another engine loads.

    Quantized weights stay the same; only their layout changes. What the engine does not do as
    ARTIFACT does, such as its tile rule, is printed as notes on stderr.
    """
    from vlmc.artifact.integrity import open_artifact

    opened = open_artifact(artifact)
    if target in ("awq", "gptq"):
        from vlmc.export.awq_gptq import export

        notes = export(opened, cast(Literal["awq", "gptq"], target), output)
    else:
        from vlmc.export.checkpoint import export_checkpoint
        from vlmc.export.limits import Engine

        notes = export_checkpoint(opened, cast(Engine, target), output)
    if as_json:
        print_json({"folder": str(output), "to": target, "notes": notes})
        return
    for note in notes:
        click.echo(f"note: {note}", err=True)
    click.echo(output)


@click.command()
@artifact_argument
@click.option(
    "--key",
    required=True,
    type=PATH,
    help="PEM file of an Ed25519 private key: openssl genpkey -algorithm ed25519 -out key.pem",
)
@json_option
@reporting_errors
def sign(artifact: Path, key: Path, as_json: bool) -> None:
    """Check ARTIFACT, sign its identity, and print the path of the signature."""
    from vlmc.artifact.integrity import open_artifact
    from vlmc.artifact.signature import sign as sign_artifact

    opened = open_artifact(artifact)
    path = sign_artifact(opened, key)
    if as_json:
        print_json({"signature": str(path), "identity": opened.identity})
    else:
        click.echo(path)
