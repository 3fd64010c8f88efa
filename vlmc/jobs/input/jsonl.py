"""JSONL input: an object a line with `image`, perhaps `prompt` and `question`, and more."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlmc.errors import UsageError
from vlmc.jobs.input.prompts import parse_object, prompt_text, question_id
from vlmc.jobs.input.rows import ImageInput, InputRow


class JsonlRows:
    """The rows of a JSONL file, every line of which is checked when it is opened.

    A relative image path is relative to the file's folder. `UsageError` names the line that
    is wrong. Lines are read again on every `read`, so that long tables need no memory.
    """

    def __init__(self, path: Path) -> None:
        self.source = str(path)
        self._path = path
        columns: dict[str, None] = {}
        prompted: set[bool] = set()
        self._count = 0
        digest = hashlib.sha256()
        for line_number, line in self._lines(digest):
            values = parse_object(line, f"{path}:{line_number}")
            row = self._row(self._count, line_number, values)
            columns.update(dict.fromkeys(row.columns))
            prompted.add(row.prompt is not None)
            if len(prompted) > 1:
                raise UsageError(
                    f'{path}:{line_number}: "prompt" must be in every line or in none; '
                    "this line differs from those above"
                )
            self._count += 1
        self.columns = tuple(columns)
        self.prompted = prompted == {True}
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
        if "image" not in values:
            found = ", ".join(map(repr, values)) or "no key"
            raise UsageError(f'{where}: has no "image" (it has {found}); name the image\'s path')
        name = values.pop("image")
        image = self._image(name, where)
        prompt = question = None
        if "prompt" in values:
            prompt = prompt_text(values.pop("prompt"), where)
            question = question_id(values.pop("question", None), 0, where)
        return InputRow(number, image, name, prompt, question, values)

    def _image(self, name: object, where: str) -> ImageInput | None:
        if name is None:
            return None
        if isinstance(name, str):
            return self._path.parent / name
        if isinstance(name, list) and all(isinstance(part, str) for part in name):
            return [self._path.parent / part for part in name]
        raise UsageError(f'{where}: "image" is {name!r}; it must be a path or a list of paths')
