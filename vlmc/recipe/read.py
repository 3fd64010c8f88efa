"""Read a recipe: YAML, overrides, checks, with errors that name file, line, key and way out."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from pydantic import ValidationError

from vlmc.errors import RecipeError
from vlmc.recipe.combinations import impossible
from vlmc.recipe.document import Document, read_document
from vlmc.recipe.explain import explain
from vlmc.recipe.schema import Recipe

_MOST_LISTED = 20


def read_recipe(path: Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read and check a recipe; `overrides` are `a.b=value` texts. Paths in it come back absolute,
    resolved relative to the recipe.

    Whether the checkpoint fits, `vlmc.recipe.fit` says.

    Raises:
        RecipeError: unknown keys, wrong values, impossible combinations. Every problem is listed,
            each with file, line, key path, allowed values and the nearest known key.
    """
    document = read_document(path)
    for assignment in overrides:
        document.set(assignment)
    try:
        recipe = Recipe.model_validate(document.values).read_from(document)
    except ValidationError as error:
        # Each has its hint looked for, and nobody reads a hundred.
        listed = document.describe(islice(explain(error), _MOST_LISTED))
        more = error.error_count() - _MOST_LISTED
        raise RecipeError(f"{listed}\n… and {more:,} more" if more > 0 else listed) from None
    problems = [*impossible(recipe)]
    if problems:
        raise RecipeError(recipe.describe(problems))
    return _with_paths(recipe, document)


def _with_paths(recipe: Recipe, document: Document) -> Recipe:
    """The recipe with its files' paths absolute."""
    changed = {}
    for part, key in (("model", "checkpoint"), ("calibration", "dataset"), ("accuracy", "dataset")):
        values = getattr(recipe, part)
        written = getattr(values, key)
        if written is None:
            continue
        try:
            named = Path(written).expanduser()
        except RuntimeError as error:
            raise RecipeError(
                f"{document.where((part, key))}: {part}.{key} is {written!r}, and that "
                "user has no home folder; write the path out"
            ) from error
        absolute = str((document.path.parent / named).absolute())
        changed[part] = values.model_copy(update={key: absolute})
    return recipe.model_copy(update=changed)
