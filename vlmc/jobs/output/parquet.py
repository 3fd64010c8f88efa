"""A finished job's lines and its input's other columns as one Parquet file."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from vlmc.errors import UsageError
from vlmc.files.atomic import atomic_path
from vlmc.jobs.input.parquet import ParquetRows, import_pyarrow
from vlmc.jobs.input.rows import InputRow, Rows
from vlmc.jobs.input.tar import TarRows
from vlmc.jobs.output.columns import CONFIDENCE_COLUMNS

ROWS_AT_ONCE = 1024


def passed_on_schema(rows: Rows, out: Path) -> Any:
    """The Arrow schema of the input's other columns.

    That of a Parquet input is kept; of other inputs it follows from the values. `UsageError`
    names a column whose values have no common type.
    """
    arrow, _ = import_pyarrow(out)
    if isinstance(rows, ParquetRows):
        return arrow.schema([rows.schema.field(name) for name in rows.columns])
    types = dict.fromkeys(rows.columns, arrow.null())
    for batch in _batched(rows):
        for name in rows.columns:
            try:
                found = arrow.array([row.columns.get(name) for row in batch]).type
                both = [arrow.schema([(name, kind)]) for kind in (types[name], found)]
                types[name] = arrow.unify_schemas(both, promote_options="permissive").types[0]
            except arrow.ArrowException as error:
                raise UsageError(
                    f"{rows.source}: the values of column {name!r} have no common type for "
                    f"Parquet ({error}); make them one type or write to .jsonl"
                ) from error
    return arrow.schema(list(types.items()))


def check_passed_on_to_json(rows: ParquetRows) -> None:
    """`UsageError` for a column whose type JSON cannot hold."""
    arrow, _ = import_pyarrow(rows.path)
    for name in rows.columns:
        kind = rows.schema.field(name).type
        if not _fits_json(arrow.types, kind):
            raise UsageError(
                f"{rows.source}: the column {name!r} is {kind}, which JSON cannot hold; write to "
                ".parquet, or leave the column out"
            )


@dataclass(frozen=True, slots=True)
class ParquetForm:
    """The Arrow schemas of an output: `own` of the job's columns, `passed_on` of the input's.

    `lists` says whether the column `image` holds lists.
    """

    own: Any
    passed_on: Any
    lists: bool

    @classmethod
    def of(cls, rows: Rows, out: Path, columns: tuple[str, ...]) -> ParquetForm:
        """The form of an output on `rows`, whose own columns are `columns`."""
        arrow, _ = import_pyarrow(out)
        lists = _has_image_lists(arrow, rows)
        return cls(_own_schema(arrow, lists, columns), passed_on_schema(rows, out), lists)

    @property
    def schema(self) -> Any:
        """All columns."""
        import pyarrow

        return pyarrow.schema([*self.own, *self.passed_on])

    def table(self, lines: Sequence[dict[str, Any]], others: Sequence[Any]) -> Any:
        """Lines, and an array for each of the other columns, as an Arrow table."""
        import pyarrow

        flat = [_storable(line, self.lists) for line in lines]
        values = [pyarrow.array([line[p.name] for line in flat], p.type) for p in self.own]
        return pyarrow.table([*values, *others], schema=self.schema)

    def passed_on_arrays(self, rows: Sequence[InputRow]) -> list[Any]:
        """An array for each of the other columns, with a value for each of the rows."""
        import pyarrow

        return [
            pyarrow.array([row.columns.get(p.name) for row in rows], p.type) for p in self.passed_on
        ]


def write_parquet(
    out: Path, lines: Iterator[dict[str, Any]], rows: Rows, columns: tuple[str, ...]
) -> None:
    """Write `lines`, each joined with the other columns of its row, and rename into place.

    `lines` are in the order of their rows and hold every row at least once; `columns` are theirs.
    """
    arrow, parquet = import_pyarrow(out)
    form = ParquetForm.of(rows, out, columns)
    grouped = itertools.groupby(lines, key=lambda line: line["row"])
    with atomic_path(out) as temporary, parquet.ParquetWriter(temporary, form.schema) as writer:
        for count, others in _passed_on_columns(rows, form):
            answered = [list(next(grouped)[1]) for _ in range(count)]
            places = [place for place, group in enumerate(answered) for _ in group]
            flat = [line for group in answered for line in group]
            taken = [column.take(arrow.array(places)) for column in others]
            writer.write_table(form.table(flat, taken))


def read_parquet_lines(out: Path | BinaryIO, columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """The lines of an output, without the other columns."""
    import pyarrow.parquet as parquet

    names = list(columns)
    with parquet.ParquetFile(out) as file:
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=names):
            yield from batch.select(names).to_pylist(maps_as_pydicts="strict")


def _own_schema(arrow: Any, lists: bool, columns: tuple[str, ...]) -> Any:
    text, number = arrow.string(), arrow.float64()
    types = {
        "row": arrow.int64(),
        "image": arrow.list_(text) if lists else text,
        "scores": arrow.map_(text, number),
        "image_tokens": arrow.int64(),
        **dict.fromkeys(CONFIDENCE_COLUMNS, number),
    }
    return arrow.schema([(name, types.get(name, text)) for name in columns])


def _passed_on_columns(rows: Rows, form: ParquetForm) -> Iterator[tuple[int, list[Any]]]:
    """(number of rows, an array for each of the other columns), over all rows."""
    names = form.passed_on.names
    if not names:
        for start in range(0, len(rows), ROWS_AT_ONCE):
            yield min(ROWS_AT_ONCE, len(rows) - start), []
    elif isinstance(rows, ParquetRows):
        for _, batch in rows.batches(0, names, ROWS_AT_ONCE):
            yield batch.num_rows, [batch.column(name) for name in names]
    else:
        for group in _batched(rows):
            yield len(group), form.passed_on_arrays(group)


def _has_image_lists(arrow: Any, rows: Rows) -> bool:
    if rows.text_only:
        return False
    if isinstance(rows, ParquetRows):
        kind = rows.schema.field("image").type
        return bool(arrow.types.is_list(kind) or arrow.types.is_large_list(kind))
    if isinstance(rows, TarRows):
        return max(rows.image_counts()) > 1
    return any(isinstance(row.name, list) for row in rows.read())


def _batched(rows: Rows) -> Iterator[list[InputRow]]:
    remaining = rows.read_columns() if isinstance(rows, TarRows) else rows.read()
    while batch := list(itertools.islice(remaining, ROWS_AT_ONCE)):
        yield batch


def _storable(line: dict[str, Any], lists: bool) -> dict[str, Any]:
    """A line as Arrow takes it: lists where the column has lists, pairs for a map, Unicode."""
    image = line["image"]
    if lists and isinstance(image, str):
        image = [image]
    return {key: _unicode(value) for key, value in {**line, "image": image}.items()}


def _unicode(value: Any) -> Any:
    """Show the bytes of file names that are not UTF-8 as escapes; Arrow has no place for them."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return [(_unicode(key), part) for key, part in value.items()]
    return [_unicode(part) for part in value] if isinstance(value, list) else value


def _fits_json(types: Any, kind: Any) -> bool:
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _fits_json(types, kind.value_type)
    if types.is_struct(kind):
        return all(_fits_json(types, part.type) for part in kind)
    if types.is_dictionary(kind):
        return _fits_json(types, kind.value_type)
    checks = (
        types.is_null,
        types.is_boolean,
        types.is_integer,
        types.is_floating,
        types.is_string,
        types.is_large_string,
    )
    return any(check(kind) for check in checks)
