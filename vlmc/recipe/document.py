"""A YAML file as plain values that remember their lines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from vlmc.errors import RecipeError

KeyPath = tuple[str | int, ...]
Problem = tuple[KeyPath, str]
"""Where, and what is said after the place."""
MAX_BYTES = 1 << 18
_MAX_DEPTH = 16
_MAX_NUMBER_CHARACTERS = 100
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


@dataclass(slots=True)
class Document:
    """Values of a recipe; `lines` gives the 1-based line of each key path of the file, and
    `overrides` the `--set` texts by the key path that they assign."""

    path: Path
    values: dict[str, Any]
    lines: dict[KeyPath, int] = field(default_factory=dict)
    overrides: dict[KeyPath, str] = field(default_factory=dict)

    def where(self, key: KeyPath) -> str:
        """Where a key was given: its `--set`, or `file:line` of it or the nearest key above."""
        key = self._nearest(key)
        return self.overrides.get(key) or f"{self.path}:{self.lines.get(key, 1)}"

    def describe(self, problems: Iterable[Problem]) -> str:
        """A line for each problem behind its place, in the file's order, overrides last."""
        ordered = sorted(problems, key=lambda problem: self._order(problem[0]))
        return "\n".join(f"{self.where(key)}: {said}" for key, said in ordered)

    def _nearest(self, key: KeyPath) -> KeyPath:
        if key not in self.lines:
            for assigned in self.overrides:
                if assigned[: len(key)] == key:
                    return assigned  # a mapping that the override made on its way
        while key and key not in self.lines and key not in self.overrides:
            key = key[:-1]
        return key

    def _order(self, key: KeyPath) -> tuple[bool, int]:
        key = self._nearest(key)
        return key in self.overrides, self.lines.get(key, 1)

    def set(self, assignment: str) -> None:
        """Apply one `a.b=value` override; the value is read as YAML.

        Raises:
            RecipeError: the text is not of that form, or a value on its way is not a mapping.
        """
        key, equals, text = assignment.partition("=")
        names = key.strip().split(".")
        said = f"--set {shortened(assignment)}"
        if not equals or not all(names) or len(names) > _MAX_DEPTH:
            raise RecipeError(f"{said}: expected KEY.KEY=VALUE, such as name=test")
        source = Path(said)
        node = _compose(text, source)
        target = self.values
        for level, name in enumerate(names[:-1], 1):
            inner = target.setdefault(name, {})
            if not isinstance(inner, dict):
                above = ".".join(names[:level])
                whole = f"; set it whole: --set '{above}=[…]'" if isinstance(inner, list) else ""
                raise RecipeError(f"{said}: {above} is not a mapping in {self.path}{whole}")
            target = inner
        target[names[-1]] = None if node is None else _value(node, (), {}, source)
        assigned = tuple(names)
        self.lines = {key: n for key, n in self.lines.items() if key[: len(names)] != assigned}
        self.overrides[assigned] = said


def shortened(text: str) -> str:
    """What a message says of a text of any length."""
    return text if len(text) <= 200 else f"{text[:200]}…"


def key_text(key: KeyPath) -> str:
    """`("vision", "engines", 0)` as `vision.engines[0]`."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read_document(path: Path) -> Document:
    """Read a YAML mapping. Tags, anchors and aliases are refused: a recipe needs none of them.

    Raises:
        RecipeError: missing, too large, not YAML, or not a mapping; names file and line.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise RecipeError(f"{path} is larger than {MAX_BYTES:,} bytes; no recipe is")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not UTF-8 text: {error}") from error
    node = _compose(text, path)
    if not isinstance(node, yaml.MappingNode):
        raise RecipeError(f"{path}:1: a recipe is a mapping of keys, such as `version: 1`")
    lines: dict[KeyPath, int] = {}
    return Document(path, _value(node, (), lines, path), lines)


def _at(path: Path, line: int) -> str:
    """`file:line`, or a `--set` alone, which has one line."""
    return str(path) if str(path).startswith("--set ") else f"{path}:{line}"


class _Loader(yaml.SafeLoader):
    """YAML without anchors, aliases and explicit tags."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.composer.ComposerError(
                None, None, "anchors and aliases are not used in recipes", event.start_mark
            )
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise yaml.composer.ComposerError(
                None, None, f"the tag {tag} is not used in recipes", event.start_mark
            )
        return super().compose_node(parent, index)


def _compose(text: str, path: Path) -> yaml.Node | None:
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise RecipeError(
            f"{_at(path, line)}: holds the character {text[error.position]!r}, which YAML forbids"
        ) from error
    try:
        node: yaml.Node | None = loader.get_single_node()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else 1
        problem = getattr(error, "problem", None) or str(error)
        tabs = "; YAML indents with spaces" if "'\\t'" in problem else ""
        raise RecipeError(
            f"{_at(path, line)}: not valid YAML for a recipe: {problem}{tabs}"
        ) from error
    except RecursionError as error:
        raise RecipeError(f"{path}: nested too deeply for a recipe") from error
    finally:
        loader.dispose()
    return node


def _value(node: yaml.Node, key: KeyPath, lines: dict[KeyPath, int], path: Path) -> Any:
    lines.setdefault(key, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise RecipeError(f"{_at(path, line)}: a key must be a plain word")
            name = key_node.value
            if name in values:
                raise RecipeError(f"{_at(path, line)}: {key_text((*key, name))} is given twice")
            lines[(*key, name)] = line
            values[name] = _value(value_node, (*key, name), lines, path)
        return values
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*key, index), lines, path) for index, item in enumerate(node.value)]
    if node.tag in _NUMBERS and len(node.value) > _MAX_NUMBER_CHARACTERS:
        # YAML counts `1:59:59` in sixties, so that few characters make a number of many digits.
        raise RecipeError(
            f"{_at(path, node.start_mark.line + 1)}: {key_text(key)} cannot be read: a number of "
            f"{len(node.value):,} characters"
        )
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node)
    except (yaml.YAMLError, ValueError) as error:
        line = node.start_mark.line + 1
        raise RecipeError(f"{_at(path, line)}: {key_text(key)} cannot be read: {error}") from error
    finally:
        loader.dispose()
