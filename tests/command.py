"""The command line, called in this process."""

from __future__ import annotations

from click.testing import CliRunner, Result

from vlmc.cli.main import main


def call(*arguments: object) -> Result:
    """Run the command in this process; anything but an exit is raised."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result
