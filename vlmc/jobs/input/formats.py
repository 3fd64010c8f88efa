"""The text formats of tables: JSON lines and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Protocol

from vlmc.errors import UsageError
from vlmc.files.units import shorten
from vlmc.jobs.input.prompts import parse_object


class TableFormat(Protocol):
    """Splits a file into records. A record that cannot be parsed does not hide those after it."""

    def records(self, file: BinaryIO, name: str) -> Iterator[tuple[int, Any]]:
        """(line number, unparsed record), without the empty ones."""

    def parse(self, record: Any, where: str) -> dict[str, Any]:
        """Column → value; `UsageError` names `where`."""


class JsonLines:
    """A JSON object on each line."""

    def records(self, file: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
        for number, line in enumerate(file, 1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line.strip():
                yield number, line

    def parse(self, record: bytes, where: str) -> dict[str, Any]:
        return parse_object(record, where)


class Csv:
    """Comma-separated values, UTF-8, with the columns' names in the first line.

    All values are text. An empty `image` or `question` is a missing one.
    """

    def __init__(self) -> None:
        self._header: list[str] = []

    def records(self, file: BinaryIO, name: str) -> Iterator[tuple[int, list[str]]]:
        with io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
            reader = csv.reader(text, strict=True)
            try:
                self._header = _checked_header(next(reader, []), f"{name}:1")
                for record in reader:
                    if record:
                        yield reader.line_num, record
            except csv.Error as error:
                raise UsageError(
                    f"{name}:{reader.line_num}: is not valid CSV ({error}); correct the line, or "
                    "write the table as .jsonl or .parquet"
                ) from error
            except UnicodeDecodeError as error:
                raise UsageError(
                    f"{name}: is not UTF-8 text ({error.reason}); save it as UTF-8"
                ) from error

    def parse(self, record: list[str], where: str) -> dict[str, Any]:
        if len(record) != len(self._header):
            raise UsageError(
                f"{where}: has {len(record)} values, but the first line names "
                f"{len(self._header)} columns; put values that hold a comma in double quotes"
            )
        values: dict[str, Any] = dict(zip(self._header, record, strict=True))
        for name in ("image", "question"):
            if values.get(name) == "":
                values[name] = None
        return values


def _checked_header(header: Sequence[str], where: str) -> list[str]:
    if len(set(header)) < len(header) or not all(header):
        raise UsageError(
            f"{where}: the columns are {shorten(', '.join(map(repr, header)))}; give each its own "
            "name"
        )
    if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
        raise UsageError(
            f"{where}: has one column, {shorten(repr(header[0]))}; separate columns by commas"
        )
    return list(header)
