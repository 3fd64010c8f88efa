"""What `vlmc verify accuracy` does instead of comparing with the source."""

from __future__ import annotations

from pathlib import Path

import click

from vlmc.cli.options import build_extra, print_json
from vlmc.errors import UsageError


def print_thresholds(
    artifact: Path,
    min_recall: float,
    choices: str | None,
    output: Path | None,
    engine: str | None,
    dataset: Path | None,
    as_json: bool,
) -> None:
    """Find thresholds for a recall, print them, and write them for `vlmc run`."""
    with build_extra():
        from vlmc.verify.recall_thresholds import find_thresholds
    from vlmc.cli.views.progress import show_progress
    from vlmc.jobs.input.prompts import checked_choices

    if choices is None or output is None:
        raise UsageError("--min-recall needs --choices and -o; add --choices yes,no -o FILE")
    labels = checked_choices([choice.strip() for choice in choices.split(",")])
    with show_progress():
        found = find_thresholds(artifact, labels, min_recall, engine=engine, dataset=dataset)
    if not as_json:
        for line in found.lines():
            click.echo(line)
    found.refuse_missed()
    found.write(output)
    if as_json:
        print_json({"thresholds": str(output), **found.to_json()})
    else:
        click.echo(output)


def print_comparison(
    artifact: Path,
    against: Path,
    engine: str | None,
    dataset: Path | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """Compare two artifacts."""
    with build_extra():
        from vlmc.verify.against import compare_artifacts
    from vlmc.cli.views.progress import show_progress

    with show_progress():
        compared = compare_artifacts(artifact, against, engine=engine, dataset=dataset, limit=limit)
    if as_json:
        print_json(compared.to_json())
    else:
        for line in compared.lines():
            click.echo(line)
