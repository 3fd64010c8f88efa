"""Tables of text: rows with `image`, perhaps `prompt` and `question`, and other columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vlmc.errors import UsageError
from vlmc.files.units import shorten
from vlmc.jobs.input.formats import TableFormat
from vlmc.jobs.input.local_file import LocalFile
from vlmc.jobs.input.prompts import prompt_text, question_id
from vlmc.jobs.input.rows import ImageInput, InputRow, image_at, images_in
from vlmc.jobs.input.table_errors import TableErrors


class TableRows:
    """The rows of a text table, every line of which is checked when it is opened.

    `image` is a path relative to the file's folder, an address of fsspec, a `data:` URL, or a list
    of these. A table without it in any row is text alone. Rows are read again on every `read`, so
    that long tables need no memory.

    Raises:
        UsageError: names the lines that are wrong.
    """

    left_out: Mapping[str, int] = {}

    def __init__(self, file: LocalFile, format: TableFormat) -> None:
        self.source = file.source
        self._file, self._format = file, format
        columns: dict[str, None] = {}
        keys: tuple[bool, bool] | None = None
        image_counts: set[int] = set()
        errors = TableErrors(self.source)
        self._count = 0
        digest = file.digest
        for line_number, record in self._records():
            with errors.collecting():
                where = f"{self.source}:{line_number}"
                values = format.parse(record, where)
                row = self._row(self._count, where, values)
                columns.update(dict.fromkeys(row.columns))
                image_counts.add(images_in(row))
                found = ("image" in values, row.prompt is not None)
                keys = keys or found
                if keys != found:
                    raise UsageError(
                        f'{where}: "image" and "prompt" must each be in every line or in none; '
                        f"this line has {_found(values)} and differs from the first"
                    )
                self._count += 1
        errors.raise_if_any()
        self.columns = tuple(columns)
        self.text_only, self.prompted = keys == (False, True), bool(keys and keys[1])
        self.identity = f"{digest}, {self._count} rows"
        self._image_counts = frozenset(image_counts - {0} or {0})

    def __len__(self) -> int:
        return self._count

    def image_counts(self) -> frozenset[int]:
        return self._image_counts

    def read(self, start: int = 0) -> Iterator[InputRow]:
        for number, (line_number, record) in enumerate(self._records()):
            if number >= start:
                where = f"{self.source}:{line_number}"
                yield self._row(number, where, self._format.parse(record, where))

    def _records(self) -> Iterator[tuple[int, Any]]:
        with self._file.path.open("rb") as file:
            yield from self._format.records(file, self.source)

    def _row(self, number: int, where: str, values: dict[str, Any]) -> InputRow:
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
            question = question_id(columns.pop("question", None), prompt, where)
        return InputRow(number, image, name, prompt, question, columns, missing)

    def _image(self, value: object, where: str) -> tuple[ImageInput | None, str | list[str] | None]:
        if value is None or value == []:
            return None, None
        if isinstance(value, str):
            return image_at(self._file.folder, value)
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            pairs = [image_at(self._file.folder, part) for part in value]
            return [image for image, _ in pairs], [name for _, name in pairs]
        raise UsageError(
            f'{where}: "image" is {shorten(repr(value))}; it must be a path or a list of paths'
        )


def _found(values: Mapping[str, Any]) -> str:
    return shorten(", ".join(map(repr, values)) or "no key")
