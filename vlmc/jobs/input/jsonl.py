"""JSONL input: an object on each line with `image`, perhaps `prompt` and `question`, and more."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vlmc.errors import UsageError
from vlmc.files.units import shorten
from vlmc.jobs.input.prompts import parse_object, prompt_text, question_id
from vlmc.jobs.input.rows import ImageInput, InputRow, image_at


class JsonlRows:
    """The rows of a JSONL file, every line of which is checked when it is opened.

    `image` is a path relative to the file's folder, a `data:` URL, or a list of these; a file
    without it in any line is text alone. Lines are read again on every `read`, so that long tables
    need no memory.

    Raises:
        UsageError: names the line that is wrong.
    """

    left_out: Mapping[str, int] = {}

    def __init__(self, path: Path) -> None:
        self.source = str(path)
        self._path = path
        columns: dict[str, None] = {}
        keys: set[tuple[bool, bool]] = set()
        self._count = 0
        digest = hashlib.sha256()
        for line_number, line in self._lines(digest):
            values = parse_object(line, f"{path}:{line_number}")
            row = self._row(self._count, line_number, values)
            columns.update(dict.fromkeys(row.columns))
            keys.add(("image" in values, row.prompt is not None))
            if len(keys) > 1:
                raise UsageError(
                    f'{path}:{line_number}: "image" and "prompt" must each be in every line or in '
                    f"none; this line has {_found(values)} and differs from those above"
                )
            self._count += 1
        self.columns = tuple(columns)
        self.text_only, self.prompted = (False, True) in keys, any(key[1] for key in keys)
        self.digest = digest.hexdigest()

    def __len__(self) -> int:
        return self._count

    def read(self, start: int = 0) -> Iterator[InputRow]:
        for number, (line_number, line) in enumerate(self._lines()):
            if number >= start:
                values = parse_object(line, f"{self._path}:{line_number}")
                yield self._row(number, line_number, values)

    def _lines(self, digest: Any = None) -> Iterator[tuple[int, bytes]]:
        """(line number, line) of the lines that are not empty."""
        try:
            with self._path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if digest is not None:
                        digest.update(line)
                    if number == 1:
                        line = line.removeprefix(b"\xef\xbb\xbf")
                    if line.strip():
                        yield number, line
        except FileNotFoundError:
            raise UsageError(f"{self._path}: there is no such file; check the path") from None
        except OSError as error:
            raise UsageError(f"{self._path}: cannot be read ({error.strerror})") from error

    def _row(self, number: int, line_number: int, values: dict[str, Any]) -> InputRow:
        where = f"{self._path}:{line_number}"
        if "image" not in values and "prompt" not in values:
            raise UsageError(
                f'{where}: has no "image" (it has {_found(values)}); name the image\'s path. '
                'Only a table of text alone has no "image", and its lines have a "prompt"'
            )
        columns = dict(values)
        missing = columns.get("image", "") in (None, [])
        image, name = self._image(columns.pop("image", None), where)
        prompt = question = None
        if "prompt" in columns:
            prompt = prompt_text(columns.pop("prompt"), where)
            question = question_id(columns.pop("question", None), 0, where)
        return InputRow(number, image, name, prompt, question, columns, missing)

    def _image(self, value: object, where: str) -> tuple[ImageInput | None, str | list[str] | None]:
        if value is None or value == []:
            return None, None
        if isinstance(value, str):
            return image_at(self._path.parent, value)
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            pairs = [image_at(self._path.parent, part) for part in value]
            return [image for image, _ in pairs], [name for _, name in pairs]
        raise UsageError(
            f'{where}: "image" is {shorten(repr(value))}; it must be a path or a list of paths'
        )


def _found(values: Mapping[str, Any]) -> str:
    return shorten(", ".join(map(repr, values)) or "no key")
