"""Pydantic's complaints in the words of a recipe: place, key path, allowed values, way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from vlmc.recipe.document import Document, KeyPath, key_text
from vlmc.recipe.schema import Recipe


def explain(error: ValidationError, document: Document) -> Iterator[str]:
    """A line for every complaint about the values of `document`."""
    problems = error.errors(include_url=False)
    keys = [tuple(problem["loc"]) for problem in problems]
    for problem, key in zip(problems, keys, strict=True):
        if any(other[: len(key)] == key != other for other in keys):
            continue  # a list is called too short when its items are wrong; the items say why
        where, text = document.where(key), key_text(key)
        match problem["type"]:
            case "extra_forbidden":
                known = _known_keys(key[:-1])
                yield (
                    f"{where}: unknown key {text}{_meant(str(key[-1]), known)} Allowed here: "
                    f"{', '.join(known)}"
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
                known_here = ", ".join(_known_keys(key))
                yield (
                    f"{where}: {text} is {problem['input']!r}; it must be a mapping of {known_here}"
                )
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
                said = problem["msg"].replace("Input should be", "it must be")
                yield f"{where}: {text} is {problem['input']!r}: {said}"


def _meant(name: str, known: Sequence[str]) -> str:
    """The key that `name` is a slip of, or where in a recipe it belongs."""
    elsewhere = [path for path in _paths(Recipe, "") if path.rpartition(".")[2] == name]
    near = (
        difflib.get_close_matches(name, known, n=1, cutoff=0.8)
        or elsewhere
        or difflib.get_close_matches(name, known, n=1)
    )
    return f"; did you mean {' or '.join(near)}?" if near else "."


def _paths(part: type[BaseModel], above: str) -> Iterator[str]:
    for name, field in part.model_fields.items():
        yield f"{above}{name}"
        inner = _inner(field.annotation)
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _paths(inner, f"{above}{name}.")


def _inner(annotation: Any) -> Any:
    """What a tuple holds, an annotation is about, or a union names first."""
    while get_origin(annotation) in (tuple, UnionType, Union, Annotated):
        annotation = get_args(annotation)[0]
    return annotation


def _annotation_at(key: KeyPath) -> Any:
    annotation: Any = Recipe
    for part in key:
        if not isinstance(part, int):
            annotation = _inner(annotation.model_fields[part].annotation)
    return annotation


def _known_keys(key: KeyPath) -> list[str]:
    annotation = _annotation_at(key)
    return list(annotation.model_fields) if issubclass(annotation, BaseModel) else []


def _allowed_at(key: KeyPath) -> list[str]:
    annotation = _annotation_at(key)
    return (
        [str(value) for value in get_args(annotation)] if get_origin(annotation) is Literal else []
    )
