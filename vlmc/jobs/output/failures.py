"""The output's lines that hold an error, and why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from vlmc.files.units import shorten

MAX_REASONS = 1000
OTHER = "other errors"


def line_error(line: Mapping[str, Any]) -> str | None:
    """The error that a line of the output holds; OpenAI results have a custom_id and no row."""
    is_result = "custom_id" in line and "row" not in line
    found = line["response"]["body"] if is_result else line
    error: dict[str, Any] | str | None = found.get("error")
    return str(error["message"]) if isinstance(error, dict) else error


class Failures:
    """Line numbers, counted from 0, each with the reason of its error.

    Errors that differ only in the image's name and in numbers have one reason.
    """

    def __init__(self) -> None:
        self._reasons: dict[int, str] = {}
        self._examples: dict[str, str] = {}  # reason → its first error, in full

    def add(self, number: int, line: Mapping[str, Any]) -> None:
        """Add line `number` of the output if it holds an error."""
        error = line_error(line)
        if error is None:
            return
        reason = _without_names(error, line.get("image"))
        if reason not in self._examples and len(self._examples) >= MAX_REASONS:
            reason = error = OTHER
        example = self._examples.setdefault(reason, shorten(error, 300))
        self._reasons[number] = example

    def remove(self, number: int) -> None:
        del self._reasons[number]

    def __contains__(self, number: int) -> bool:
        return number in self._reasons

    def __iter__(self) -> Iterator[int]:
        return iter(self._reasons)

    def __len__(self) -> int:
        return len(self._reasons)

    def most_frequent(self, limit: int = 3) -> list[tuple[str, int]]:
        """(an error of the reason, number of lines), the most frequent first."""
        return Counter(self._reasons.values()).most_common(limit)


def _without_names(error: str, image: str | list[str] | None) -> str:
    for name in [image] if isinstance(image, str) else image or []:
        error = error.replace(name, "…")
    return re.sub(r"\d+", "#", error)
