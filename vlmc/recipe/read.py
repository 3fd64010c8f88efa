"""Read a recipe: YAML, overrides, checks, with errors that name file, line, key and way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from vlmc.errors import RecipeError, UsageError
from vlmc.image.tiles import TileRule
from vlmc.recipe.document import Document, KeyPath, key_text, read_document
from vlmc.recipe.schema import LATER_KEYS, LATER_VALUES, Recipe


def read_recipe(path: Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read and check a recipe; `overrides` are `a.b=value` texts. The checkpoint's path comes
    back absolute, resolved relative to the recipe.

    Raises:
        RecipeError: anything that this version cannot build as it is written. Every problem is
            listed, each with file, line, key path, allowed values and the nearest known key.
    """
    document = read_document(path)
    for assignment in overrides:
        document.set(assignment)
    problems = [*_later(document)]
    if problems:
        raise RecipeError("\n".join(problems))
    try:
        recipe = Recipe.model_validate(document.values)
    except ValidationError as error:
        raise RecipeError("\n".join(_explain(error, document))) from None
    _check_tiles(recipe, document)
    try:
        folder = Path(recipe.model.checkpoint).expanduser()
    except RuntimeError as error:
        raise RecipeError(
            f"{document.where(('model', 'checkpoint'))}: model.checkpoint is "
            f"{recipe.model.checkpoint!r}, and there is no such user's home; write the path out"
        ) from error
    model = recipe.model.model_copy(update={"checkpoint": str((path.parent / folder).absolute())})
    return recipe.model_copy(update={"model": model})


def _later(document: Document) -> Iterable[str]:
    """Keys and values of the published recipe that a later version brings."""
    for key, meanwhile in LATER_KEYS.items():
        for parts, _ in _found(document.values, tuple(key.split(".")), ()):
            yield (
                f"{document.where(parts)}: {key_text(parts)} is not supported by this version; "
                f"{meanwhile}. Remove the key."
            )
    for key, values in LATER_VALUES.items():
        for parts, found in _found(document.values, tuple(key.split(".")), ()):
            if found in values:
                allowed = ", ".join(_allowed_at(parts))
                yield (
                    f"{document.where(parts)}: {key_text(parts)}: {found} is not supported by "
                    f"this version; allowed: {allowed}"
                )


def _found(values: Any, key: KeyPath, above: KeyPath) -> Iterable[tuple[KeyPath, Any]]:
    if not key:
        yield above, values
    elif isinstance(values, list):
        for index, item in enumerate(values):
            yield from _found(item, key, (*above, index))
    elif isinstance(values, dict) and key[0] in values:
        yield from _found(values[key[0]], key[1:], (*above, key[0]))


def _explain(error: ValidationError, document: Document) -> Iterable[str]:
    problems = error.errors(include_url=False)
    keys = [tuple(problem["loc"]) for problem in problems]
    for problem, key in zip(problems, keys, strict=True):
        if any(other[: len(key)] == key != other for other in keys):
            continue  # a list is called too short when its items are wrong; the items say why
        where, text = document.where(key), key_text(key)
        match problem["type"]:
            case "extra_forbidden":
                known = _known_keys(key[:-1])
                near = difflib.get_close_matches(str(key[-1]), known, n=1)
                hint = f"; did you mean {near[0]}?" if near else "."
                yield f"{where}: unknown key {text}{hint} Allowed here: {', '.join(known)}"
            case "missing" if key == ("vision",) or key == ("vision", "precision"):
                yield (
                    f"{where}: vision.precision is left out, and its default fp16 is not supported "
                    "by this version. Write `vision: {precision: fp32}`."
                )
            case "missing":
                yield f"{where}: {text} is required and missing"
            case "literal_error":
                allowed = _allowed_at(key)
                near = difflib.get_close_matches(str(problem["input"]), allowed, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                yield (
                    f"{where}: {text} is {problem['input']!r}, allowed: {', '.join(allowed)}{hint}"
                )
            case "model_type":
                known = ", ".join(_known_keys(key))
                yield f"{where}: {text} is {problem['input']!r}; it must be a mapping of {known}"
            case "tuple_type":
                yield f"{where}: {text} is {problem['input']!r}; it must be a list"
            case "too_short":
                yield f"{where}: {text} is empty; give at least one"
            case "value_error":
                yield f"{where}: {text} is {problem['input']!r}: {problem['ctx']['error']}"
            case "string_pattern_mismatch":
                yield (
                    f"{where}: {text} is {problem['input']!r}; a name becomes a folder's name, so "
                    "it has at most 100 letters, digits, '.', '_' and '-', a letter or digit first"
                )
            case _:
                yield f"{where}: {text} is {problem['input']!r}: {problem['msg'].lower()}"


def _check_tiles(recipe: Recipe, document: Document) -> None:
    tiles = recipe.image.tiles
    try:
        TileRule(tiles.rule, tiles.min, tiles.max, tiles.thumbnail, tiles.tolerance)
    except UsageError as error:
        # The message begins with the key, tiles.max for one.
        key = tuple(str(error).split(" ")[0].split("."))
        raise RecipeError(f"{document.where(('image', *key))}: image.{error}") from error


def _annotation_at(key: KeyPath) -> Any:
    annotation: Any = Recipe
    for part in key:
        if isinstance(part, int):
            annotation = get_args(annotation)[0]
        else:
            annotation = annotation.model_fields[part].annotation
        if get_origin(annotation) in (UnionType, Union):
            annotation = get_args(annotation)[0]
    return annotation


def _known_keys(key: KeyPath) -> Sequence[str]:
    annotation = _annotation_at(key)
    return list(annotation.model_fields) if issubclass(annotation, BaseModel) else []


def _allowed_at(key: KeyPath) -> list[str]:
    annotation = _annotation_at(key)
    return (
        [str(value) for value in get_args(annotation)] if get_origin(annotation) is Literal else []
    )
