"""Refuse, before any work, what a recipe asks for and this version cannot build yet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vlmc.errors import RecipeError
from vlmc.recipe.document import KeyPath, Problem, key_text
from vlmc.recipe.extent import BUILDABLE, NOT_ACTED_ON
from vlmc.recipe.schema import Recipe


def check_buildable(recipe: Recipe) -> None:
    """Refuse values that are not built yet, and written keys that would have no effect.

    Raises:
        RecipeError: a line for each such key, with its place and what to write.
    """
    problems = [*_values_not_built(recipe), *_keys_not_acted_on(recipe)]
    if problems:
        raise RecipeError(recipe.tell(problems))


def _values_not_built(recipe: Recipe) -> Iterator[Problem]:
    given = set(recipe.given())
    for name, allowed in BUILDABLE.items():
        for key, value in _at(recipe, tuple(name.split(".")), ()):
            if value in allowed:
                continue
            text = key_text(key)
            if key in given:
                yield (
                    key,
                    f"{text}: {value} is not supported by this version; "
                    f"allowed: {', '.join(allowed)}",
                )
            else:
                part, _, last = name.rpartition(".")
                yield (
                    key,
                    f"{text} is left out, and its default {value} is not supported by "
                    f"this version. Write `{part}: {{{last}: {allowed[0]}}}`.",
                )


def _keys_not_acted_on(recipe: Recipe) -> Iterator[Problem]:
    given = recipe.given()
    for key in given:
        names = [part for part in key if isinstance(part, str)]
        holder = next((held for held in NOT_ACTED_ON if _leads(held.split("."), names)), None)
        if holder is None:
            continue
        # Of a part of the recipe its keys are told, `runtime.prefix_cache` and not `runtime`;
        # of a value, the value's key and nothing below it.
        level = max(2, holder.count(".") + 1)
        if len(names) > level or (
            len(names) < level and any(other[: len(key)] == key != other for other in given)
        ):
            continue
        if _explained_by_value(recipe, key):
            continue
        yield (
            key,
            f"{key_text(key)} is not supported by this version; {NOT_ACTED_ON[holder]}. "
            "Remove the key.",
        )


def _leads(above: list[str], names: list[str]) -> bool:
    return names[: len(above)] == above


def _explained_by_value(recipe: Recipe, key: KeyPath) -> bool:
    """Whether the value beside the key, which is refused, is the reason for it: the targets of an
    engine that is not built."""
    names = [part for part in key if isinstance(part, str)]
    chosen = "vision.engines.engine"
    if names[:2] != ["vision", "engines"]:
        return False
    above = key[:-1]
    return any(
        place[:-1] == above and value not in BUILDABLE[chosen]
        for place, value in _at(recipe, tuple(chosen.split(".")), ())
    )


def _at(part: Any, names: tuple[str, ...], above: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    """Key path and value of every place that `names` leads to, lists walked through."""
    if isinstance(part, tuple):
        for index, item in enumerate(part):
            yield from _at(item, names, (*above, index))
    elif not names:
        yield above, part
    else:
        yield from _at(getattr(part, names[0]), names[1:], (*above, names[0]))
