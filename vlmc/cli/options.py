"""What the commands share: options, printing, and how they end."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

from vlmc.errors import ModelLostError, UsageError, VlmcError

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")

PATH = click.Path(path_type=Path)

recipe_argument = click.argument("recipe", type=PATH)
artifact_argument = click.argument("artifact", type=PATH)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as one JSON object on stdout."
)
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key; repeatable."
)
artifact_folder_option = click.option(
    "-o", "--output", type=PATH, help="The folder of the new artifact."
)
device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda, or cuda:N."
)
devices_option = click.option(
    "--devices",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Share the model out over N GPUs from --device on, for models that one cannot hold.",
)
engine_option = click.option(
    "--engine",
    metavar="NAME",
    help="The vision engine to use instead of the first that fits; onnxruntime runs the bundled "
    "graph on the CPU.",
)


def parse_seconds(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> float | None:
    """The callback of an option that takes a duration such as `30m`: its seconds."""
    from vlmc.files.units import parse_duration

    try:
        return None if value is None else parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def reporting_errors(command: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
    """Print a `VlmcError` as one message and exit with its code."""

    @wraps(command)
    def run(*arguments: Parameters.args, **options: Parameters.kwargs) -> Returned:
        try:
            return command(*arguments, **options)
        except VlmcError as error:
            click.echo(f"error: {_printable(str(error))}", err=True)
            sys.exit(error.exit_code)

    return run


@contextmanager
def build_extra() -> Iterator[None]:
    """Say what to install where an import of the compile wing fails."""
    try:
        yield
    except ModuleNotFoundError as error:
        from vlmc.distribution import install_command

        raise UsageError(
            f"this command needs the package {error.name}, which is not installed. Install vlmc "
            f"with its build extra: {install_command('build')}"
        ) from error


def print_json(values: dict[str, Any]) -> None:
    """Print the result of a command as one JSON object."""
    click.echo(json.dumps(values, ensure_ascii=False))


def print_artifact(folder: Path, as_json: bool) -> None:
    """Print where an artifact is; as JSON with its identity."""
    from vlmc.artifact.manifest import read_manifest

    if as_json:
        print_json({"artifact": str(folder), "identity": read_manifest(folder).identity})
    else:
        click.echo(folder)


def counted(number: int, noun: str) -> str:
    """`1 answer`, `2 answers`, `1,000 answers`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@contextmanager
def resumable() -> Iterator[None]:
    """Say after Ctrl-C, or where the model was lost, that finished work is kept."""
    try:
        yield
    except ModelLostError as error:
        raise ModelLostError(
            f"{error} Finished work is kept; run the same command again to resume."
        ) from error
    except KeyboardInterrupt:
        raise VlmcError(
            "interrupted. Finished work is kept; run the same command again to resume."
        ) from None


def _printable(text: str) -> str:
    """The text without control codes, which names in foreign files may hold."""
    return "".join(
        letter if letter.isprintable() or letter == "\n" else repr(letter)[1:-1] for letter in text
    )


def refuse_beside(option: str, others: Mapping[str, object]) -> None:
    """Refuse options that another one leaves without an effect."""
    unused = [name for name, value in others.items() if value]
    if unused:
        raise UsageError(f"{unused[0]} has no effect beside {option}; leave one out")
