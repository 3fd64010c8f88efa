"""The questions that a job asks of every image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmc.errors import UsageError
from vlmc.files.units import shorten


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question's id, as the output's column `question` has it, and its text."""

    question: str
    text: str


def prompts_from_texts(texts: Sequence[str]) -> list[Prompt]:
    """Questions "0", "1", … in the order given. `UsageError` for an empty text."""
    return [_prompt(str(number), text, "--prompt") for number, text in enumerate(texts)]


def prompts_from_file(path: Path) -> list[Prompt]:
    """Read a text file with one prompt a line, or JSONL objects {"question": id, "prompt": text}.

    Empty lines are left out; a question without an id is called by its position. `UsageError`
    names the file and line that cannot be read.
    """
    lines = [(number, line) for number, line in enumerate(read_lines(path), 1) if line.strip()]
    if not lines:
        raise UsageError(f"{path}: holds no prompt; write one a line")
    if path.suffix == ".jsonl":
        prompts = [
            _prompt_from_json(parse_object(line, f"{path}:{number}"), position, f"{path}:{number}")
            for position, (number, line) in enumerate(lines)
        ]
    else:
        prompts = [
            _prompt(str(position), line.strip(), f"{path}:{number}")
            for position, (number, line) in enumerate(lines)
        ]
    seen: set[str] = set()
    for (number, _), prompt in zip(lines, prompts, strict=True):
        if prompt.question in seen:
            raise UsageError(
                f"{path}:{number}: the question id {prompt.question!r} is taken by an earlier "
                "line; give each question its own"
            )
        seen.add(prompt.question)
    return prompts


def _prompt_from_json(values: dict[str, Any], position: int, where: str) -> Prompt:
    unknown = sorted(set(values) - {"question", "prompt"})
    if unknown:
        raise UsageError(f'{where}: unknown key {unknown[0]!r}; use "question" and "prompt"')
    return _prompt(
        question_id(values.get("question"), position, where), values.get("prompt"), where
    )


def _prompt(question: str, text: object, where: str) -> Prompt:
    return Prompt(question, prompt_text(text, where))


def prompt_text(text: object, where: str) -> str:
    """`text` if it is a prompt, else `UsageError`."""
    if not isinstance(text, str) or not text.strip():
        raise UsageError(
            f"{where}: the prompt is {shorten(repr(text))}; it must be text that is not empty"
        )
    return text


def question_id(value: object, default: int, where: str) -> str:
    """The id as text; `default` where there is none."""
    if value is None:
        return str(default)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise UsageError(
            f"{where}: the question id is {shorten(repr(value))}; it must be text or a number"
        )
    return str(value)


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file, split at line feeds alone."""
    try:
        return path.read_bytes().decode("utf-8-sig").split("\n")
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file; check the path") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is not UTF-8 text ({error.reason}); save it as UTF-8") from error


def parse_object(line: str | bytes, where: str) -> dict[str, Any]:
    """One JSON object; `UsageError` naming `where` for anything else, NaN included."""

    def refuse_constant(name: str) -> None:
        raise ValueError(f"{name} is not JSON")

    try:
        values = json.loads(line, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: is not a JSON object ({error}); correct the line") from error
    if not isinstance(values, dict):
        raise UsageError(f"{where}: is {type(values).__name__}, not an object; write {{…}}")
    return values
