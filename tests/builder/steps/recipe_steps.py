"""The steps of a recipe and their keys."""

from __future__ import annotations

from pathlib import Path

from tests.artifacts import write_recipe
from vlmc.builder.steps import recipe_steps as steps
from vlmc.builder.steps.context import BuildContext
from vlmc.builder.steps.samples import read_samples
from vlmc.builder.steps.step import Step
from vlmc.checkpoint.source import open_checkpoint
from vlmc.files.hashing import file_sha256
from vlmc.recipe.read import read_recipe
from vlmc.recipe.resolve import resolve


def steps_of(checkpoint: Path, recipe: Path, overrides: tuple[str, ...] = ()) -> list[Step]:
    """The steps of the least recipe of a checkpoint."""
    read = read_recipe(write_recipe(recipe, checkpoint), overrides)
    with open_checkpoint(checkpoint) as opened:
        digests = {path.name: file_sha256(path) for path in steps.source_files(opened.folder)}
        context = BuildContext(resolve(read, opened.config), opened, digests, read_samples(read))
        return steps.make_steps(context)


def keys(made: list[Step]) -> dict[str, str]:
    """Name → key."""
    return {step.name: step.key for step in made}
