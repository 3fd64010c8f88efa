"""Pydantic's complaints in the words of a recipe: place, key path, allowed values, way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from vlmc.recipe.document import KeyPath, Problem, key_text, shortened
from vlmc.recipe.schema import Recipe

# What pydantic calls them → what they are in YAML.
_WORDS = {
    "Input should be": "it must be",
    "a valid boolean": "true or false",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid string": "a text",
}
# Names of the same numbers elsewhere.
_OTHER_NAMES = {"float32": "fp32", "float16": "fp16", "half": "fp16", "bfloat16": "bf16"}


def explain(error: ValidationError) -> Iterator[Problem]:
    """Every complaint of pydantic's about a recipe, with its key path."""
    problems = error.errors(include_url=False)
    keys: list[KeyPath] = [tuple(problem["loc"]) for problem in problems]
    above = {key[:length] for key in keys for length in range(len(key))}
    for problem, key in zip(problems, keys, strict=True):
        if key in above:
            continue  # a list is called too short when its items are wrong; the items say why
        value = problem["input"]
        found = f"{key_text(key)} is {'empty' if value is None else shortened(repr(value))}"
        match problem["type"]:
            case "extra_forbidden":
                known = _known_keys(key[:-1])
                said = (
                    f"unknown key {shortened(key_text(key))}{_meant(str(key[-1]), known)} "
                    f"Allowed here: {', '.join(known)}"
                )
            case "missing":
                said = f"{key_text(key)} is required and missing"
            case "literal_error":
                allowed = _allowed_at(key)
                hint = _meant_value(str(problem["input"]), key, allowed)
                said = f"{found}, allowed: {', '.join(allowed)}{hint}"
            case "model_type":
                said = f"{found}; it must be a mapping of {', '.join(_known_keys(key))}"
            case "tuple_type":
                said = f"{found}; it must be a list"
            case "too_short":
                said = f"{key_text(key)} is empty; give at least one"
            case "value_error":
                said = f"{found}: {problem['ctx']['error']}"
            case "string_pattern_mismatch":
                said = (
                    f"{found}; a name becomes a folder's name, so it has at most 100 letters, "
                    "digits, '.', '_' and '-', a letter or digit first"
                )
            case _:
                said = f"{found}: {_in_words(problem['msg'])}"
        yield key, said


def _in_words(message: str) -> str:
    for theirs, ours in _WORDS.items():
        message = message.replace(theirs, ours)
    return message


def _meant_value(value: str, key: KeyPath, allowed: Sequence[str]) -> str:
    """The allowed value that `value` is a slip of, or the key beside that it is a value of."""
    word = _OTHER_NAMES.get(value.casefold(), value.casefold())
    near = difflib.get_close_matches(word, allowed, n=1)
    if near:
        return f"; did you mean {near[0]}?"
    above = key[:-1]
    if above and isinstance(key[-1], str):
        for name in _known_keys(above):
            if value in _allowed_at((*above, name)):
                return f"; {value} is a value of {key_text((*above, name))}"
    return ""


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
