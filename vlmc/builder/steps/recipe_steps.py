"""The steps that a recipe and a checkpoint ask for. Imports nothing heavy before one runs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

from vlmc.builder.steps.context import BuildContext
from vlmc.builder.steps.language import language_steps
from vlmc.builder.steps.step import Step
from vlmc.builder.steps.vision import vision_steps
from vlmc.errors import UsageError

# Files of a checkpoint that decide what is built; Python and documentation do not.
_SOURCE_SUFFIXES = (".json", ".safetensors", ".model", ".txt")


def source_files(folder: Path) -> list[Path]:
    """Files of a checkpoint whose digests a build needs, sorted."""
    return sorted(
        path for path in folder.iterdir() if path.is_file() and path.suffix in _SOURCE_SUFFIXES
    )


def make_steps(context: BuildContext) -> list[Step]:
    """Every step whose files the artifact holds, in the order of work; reads headers only.

    Raises:
        TokenizerError: the tokenizer lacks what the template needs.
        UsageError: a package that the steps need is not installed.
    """
    return [*vision_steps(context), *language_steps(context)]


def with_needs(steps: Iterable[Step]) -> list[Step]:
    """The steps and those whose files they read, each once, before the first that needs it."""
    found: dict[str, Step] = {}
    for step in steps:
        for one in (*with_needs(step.needs), step):
            found.setdefault(one.name, one)
    return list(found.values())


def select(steps: Sequence[Step], names: Iterable[str], option: str) -> list[Step]:
    """Those steps of the names given: a step's, or the part before the dot for all of a wing.

    Raises:
        UsageError: a name does not belong to a step.
    """
    chosen: set[str] = set()
    for name in names:
        found = {step.name for step in steps if name in (step.name, wing(step))}
        if not found:
            known = list(dict.fromkeys(n for step in steps for n in (wing(step), step.name)))
            close = difflib.get_close_matches(name, known, 1)
            hint = f", did you mean {close[0]}?" if close else ""
            raise UsageError(f"{option} {name}: no such step{hint} (known: {', '.join(known)})")
        chosen |= found
    return [step for step in steps if step.name in chosen]


def wing(step: Step) -> str:
    """The artifact's folder that the step's files belong in."""
    return step.name.partition(".")[0]
