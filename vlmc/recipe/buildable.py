"""Refuse, before any work, keys of a recipe that this version does not act on yet."""

from __future__ import annotations

from collections.abc import Iterator

from vlmc.errors import RecipeError
from vlmc.recipe.document import Problem, key_text
from vlmc.recipe.pending_keys import PENDING_KEYS
from vlmc.recipe.schema import Recipe


def check_buildable(recipe: Recipe) -> None:
    """Refuse written keys that would have no effect.

    Raises:
        RecipeError: a line for each such key, with its place and what to write.
    """
    problems = [*_keys_not_acted_on(recipe)]
    if problems:
        raise RecipeError(recipe.describe(problems))


def _keys_not_acted_on(recipe: Recipe) -> Iterator[Problem]:
    given = recipe.given()
    for key in given:
        names = [part for part in key if isinstance(part, str)]
        holder = next((held for held in PENDING_KEYS if _leads(held.split("."), names)), None)
        if holder is None:
            continue
        # The message names the keys of a part, `runtime.prefix_cache` and not `runtime`;
        # of a value, the value's key and nothing below it.
        level = max(2, holder.count(".") + 1)
        if len(names) > level or (
            len(names) < level and any(other[: len(key)] == key != other for other in given)
        ):
            continue
        yield (
            key,
            f"{key_text(key)} is not supported by this version; {PENDING_KEYS[holder]}. "
            "Remove the key.",
        )


def _leads(above: list[str], names: list[str]) -> bool:
    return names[: len(above)] == above
