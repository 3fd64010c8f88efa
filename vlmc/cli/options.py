"""What the commands of the command line share."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

from vlmc.errors import UsageError, VlmcError

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")


def reporting_errors(command: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
    """Print a `VlmcError` as one message and leave with its exit code."""

    @wraps(command)
    def run(*arguments: Parameters.args, **options: Parameters.kwargs) -> Returned:
        try:
            return command(*arguments, **options)
        except VlmcError as error:
            click.echo(f"error: {_printable(str(error))}", err=True)
            sys.exit(error.exit_code)

    return run


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as one JSON object on stdout."
)


@contextmanager
def build_extra() -> Iterator[None]:
    """Say what to install where an import of the compile wing fails."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(
            f"this command needs the package {error.name}, which is not installed. Install vlmc "
            "with its build extra: pip install 'vlmc[build]'"
        ) from error


def say(text: str) -> None:
    """Print a line on stderr."""
    click.echo(text, err=True)


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


@contextmanager
def resumable() -> Iterator[None]:
    """Say after Ctrl-C that nothing finished is lost."""
    try:
        yield
    except KeyboardInterrupt:
        raise VlmcError(
            "interrupted. What was finished is kept: the same command goes on from there."
        ) from None


def _printable(text: str) -> str:
    """What a terminal only shows; names in foreign files may hold control codes."""
    return "".join(
        letter if letter.isprintable() or letter == "\n" else repr(letter)[1:-1] for letter in text
    )
