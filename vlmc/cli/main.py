"""The command line. Commands import what they need when they run, so that `--help` is fast."""

from __future__ import annotations

import click

from vlmc.cli.artifact import doctor, export_weights, inspect, sign
from vlmc.cli.bench import bench
from vlmc.cli.build import build, cache, plan, rebuild
from vlmc.cli.run import run
from vlmc.cli.verify import verify
from vlmc.version import __version__


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vlmc")
def main() -> None:
    """Compile InternVL2 models and answer questions about images with them."""


COMMANDS = (plan, build, rebuild, run, verify, bench, inspect, doctor, export_weights, sign, cache)
for command in COMMANDS:
    main.add_command(command)
