"""The questions that a job asks of every image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmc.errors import UsageError
from vlmc.files.units import shorten
from vlmc.jobs.input.table_errors import TableErrors


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question's id, which is the output's column `question`, and its text.

    `choices`, where given, are scored instead of those of the job.
    """

    question: str
    text: str
    choices: tuple[str, ...] | None = None


def prompts_from_texts(texts: Sequence[str]) -> list[Prompt]:
    """Questions in the order given, each its own id.

    `UsageError` for an empty or repeated text.
    """
    prompts = [Prompt(text, prompt_text(text, "--prompt")) for text in texts]
    _refuse_doubles(prompts, ["--prompt"] * len(prompts))
    return prompts


def prompts_from_file(path: Path) -> list[Prompt]:
    """Read a text file with one prompt a line, or JSONL objects {"question": id, "prompt": text}.

    An object may have "choices", a list of texts. Empty lines are left out. The id of a question
    without one is its text. `UsageError` names the file and every line that is wrong.
    """
    lines = [(number, line) for number, line in enumerate(read_lines(path), 1) if line.strip()]
    if not lines:
        raise UsageError(f"{path}: has no prompt; write one on each line")
    as_json = path.suffix.lower() in {".jsonl", ".ndjson"}
    prompts, errors = [], TableErrors(path)
    for number, line in lines:
        where = f"{path}:{number}"
        with errors.collecting():
            prompts.append(
                _prompt_from_json(parse_object(line, where), where)
                if as_json
                else Prompt(line.strip(), line.strip())
            )
    errors.raise_if_any()
    _refuse_doubles(prompts, [f"{path}:{number}" for number, _ in lines])
    return prompts


def _refuse_doubles(prompts: Sequence[Prompt], places: Sequence[str]) -> None:
    ids: set[str] = set()
    texts: set[str] = set()
    for prompt, where in zip(prompts, places, strict=True):
        if prompt.text in texts:
            raise UsageError(
                f"{where}: the prompt {shorten(repr(prompt.text))} is given twice; remove one"
            )
        if prompt.question in ids:
            raise UsageError(
                f"{where}: the question id {shorten(repr(prompt.question))} is given twice; give "
                "each question its own id"
            )
        texts.add(prompt.text)
        ids.add(prompt.question)


def _prompt_from_json(values: dict[str, Any], where: str) -> Prompt:
    unknown = sorted(set(values) - {"question", "prompt", "choices"})
    if unknown:
        raise UsageError(
            f'{where}: unknown key {unknown[0]!r}; use "question", "prompt" and "choices"'
        )
    text = prompt_text(values.get("prompt"), where)
    choices = values.get("choices")
    return Prompt(
        question_id(values.get("question"), text, where),
        text,
        None if choices is None else checked_choices(choices, f"{where}: "),
    )


def checked_choices(choices: object, where: str = "") -> tuple[str, ...]:
    """At least two different texts that are not empty, else `UsageError`."""
    found = choices if isinstance(choices, list | tuple) else ()
    texts = [choice for choice in found if isinstance(choice, str) and choice.strip()]
    if len(texts) < 2 or len(set(texts)) < len(found):
        raise UsageError(
            f"{where}the choices are {shorten(repr(choices))}; give at least two texts, "
            "different and not empty"
        )
    return tuple(texts)


def prompt_text(text: object, where: str) -> str:
    """`text` if it is a prompt, else `UsageError`."""
    if not isinstance(text, str) or not text.strip():
        raise UsageError(
            f"{where}: the prompt is {shorten(repr(text))}; it must be text that is not empty"
        )
    return text


def question_id(value: object, default: str, where: str) -> str:
    """The id as text, or `default` if there is none."""
    if value is None:
        return default
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
