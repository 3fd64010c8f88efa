"""Parquet input: a column `image`, perhaps `prompt` and `question`, and more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vlmc.distribution import install_command
from vlmc.errors import UsageError
from vlmc.image.source import describe
from vlmc.jobs.input.local_file import LocalFile
from vlmc.jobs.input.prompts import prompt_text, question_id
from vlmc.jobs.input.rows import ImageInput, InputRow, image_at
from vlmc.jobs.input.table_errors import TableErrors

# Rows may hold whole image files, so that few are in memory at once.
BATCH_ROWS = 64


def import_pyarrow(path: Path) -> tuple[Any, Any]:
    """(pyarrow, pyarrow.parquet); `UsageError` names the extra that installs them."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(
            f"{path}: Parquet needs pyarrow ({error}); install it: {install_command('parquet')}"
        ) from error
    return pyarrow, pyarrow.parquet


class ParquetRows:
    """The rows of a Parquet file.

    `image` holds paths relative to the file's folder, `data:` URLs, encoded images as bytes,
    structs {bytes, path} as in Hugging Face datasets, or lists of these. A file without that
    column, whose rows have a `prompt`, is text alone.

    Raises:
        UsageError: says which column cannot be used.
    """

    left_out: Mapping[str, int] = {}

    def __init__(self, file: LocalFile) -> None:
        self.source, self._file = file.source, file
        path = self.path = file.path
        arrow, parquet = import_pyarrow(path)
        try:
            with parquet.ParquetFile(path) as opened:
                self.schema = opened.schema_arrow
                self._count: int = opened.metadata.num_rows
            digest = file.digest
        except FileNotFoundError:
            raise UsageError(f"{self.source}: there is no such file; check the path") from None
        except (OSError, arrow.ArrowException) as error:
            raise UsageError(f"{self.source}: cannot be read as Parquet ({error})") from error
        self.identity = f"{digest}, {self._count} rows"
        names = self.schema.names
        self.prompted, self.text_only = "prompt" in names, "image" not in names
        if self.text_only and not self.prompted:
            raise UsageError(f"{self.source}: has no column 'image' (it has {', '.join(names)})")
        kind = None if self.text_only else self.schema.field("image").type
        if kind is not None and not _is_image_type(arrow.types, kind):
            raise UsageError(
                f"{self.source}: the column 'image' is {kind}; it must hold paths, bytes, structs "
                "of bytes and path, or lists of these"
            )
        own = {"image", "prompt", "question"} if self.prompted else {"image"}
        self.columns = tuple(name for name in names if name not in own)
        if self.prompted:
            self._check_prompts()

    def __len__(self) -> int:
        return self._count

    def image_counts(self) -> frozenset[int]:
        arrow, _ = import_pyarrow(self.path)
        if self.text_only:
            return frozenset({0})
        kind = self.schema.field("image").type
        if not (arrow.types.is_list(kind) or arrow.types.is_large_list(kind)):
            return frozenset({1})
        return frozenset(
            length
            for _, batch in self.batches(0, ["image"])
            for length in batch.column("image").value_lengths().to_pylist()
            if length
        )

    def read(self, start: int = 0) -> Iterator[InputRow]:
        for first, batch in self.batches(start, self.schema.names):
            for offset, values in enumerate(batch.to_pylist()):
                yield self._row(first + offset, values)

    def batches(
        self, start: int, columns: list[str], size: int = BATCH_ROWS
    ) -> Iterator[tuple[int, Any]]:
        """(number of the first row, record batch of `columns`), from row `start` on."""
        arrow, parquet = import_pyarrow(self.path)
        try:
            with parquet.ParquetFile(self.path) as file:
                first, groups = 0, list(range(file.metadata.num_row_groups))
                while groups and first + file.metadata.row_group(groups[0]).num_rows <= start:
                    first += file.metadata.row_group(groups.pop(0)).num_rows
                for batch in file.iter_batches(size, row_groups=groups, columns=columns):
                    kept = batch.slice(max(0, start - first))
                    if kept.num_rows:
                        yield max(first, start), kept
                    first += batch.num_rows
        except (OSError, arrow.ArrowException) as error:
            raise UsageError(f"{self.source}: cannot be read as Parquet ({error})") from error

    def _check_prompts(self) -> None:
        columns = [name for name in ("prompt", "question") if name in self.schema.names]
        errors = TableErrors(self.source)
        for first, batch in self.batches(0, columns):
            for number, values in enumerate(batch.to_pylist(), first):
                with errors.collecting():
                    where = f"{self.source}, row {number}"
                    prompt = prompt_text(values["prompt"], where)
                    question_id(values.get("question"), prompt, where)
        errors.raise_if_any()

    def _row(self, number: int, values: dict[str, Any]) -> InputRow:
        image, name = self._image(values.pop("image", None))
        missing = image is None and not self.text_only
        prompt = question = None
        if self.prompted:
            prompt = values.pop("prompt")
            question = question_id(
                values.pop("question", None), prompt, f"{self.source}, row {number}"
            )
        return InputRow(number, image, name, prompt, question, values, missing)

    def _image(self, value: Any) -> tuple[ImageInput | None, str | list[str] | None]:
        if value is None or value == []:
            return None, None
        if isinstance(value, list):
            images, names = [], []
            for part in value:
                image, name = self._image(part)
                if image is None or isinstance(image, list) or not isinstance(name, str):
                    return None, None
                images.append(image)
                names.append(name)
            return images, names
        if isinstance(value, dict):
            content, path = value.get("bytes"), value.get("path")
            if content is None:
                return self._image(path)
            return content, path or describe(content)
        if isinstance(value, bytes):
            return value, describe(value)
        return image_at(self._file.folder, value)


def _is_image_type(types: Any, kind: Any) -> bool:
    if types.is_list(kind) or types.is_large_list(kind):
        part = kind.value_type
        return _is_image_type(types, part) and (types.is_struct(part) or not types.is_nested(part))
    if types.is_struct(kind):
        fields = {part.name: part.type for part in kind}
        return set(fields) <= {"bytes", "path"} and all(
            types.is_null(part) or (_is_image_type(types, part) and not types.is_nested(part))
            for part in fields.values()
        )
    if types.is_dictionary(kind):
        return _is_image_type(types, kind.value_type)
    checks = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    return any(check(kind) for check in checks)
