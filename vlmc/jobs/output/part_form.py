"""The content of a part: lines as JSONL or Parquet."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmc.errors import IntegrityError
from vlmc.jobs.input.rows import InputRow, Rows
from vlmc.jobs.output.journal import encode_line
from vlmc.jobs.output.parquet import ParquetForm, read_parquet_lines


@dataclass(frozen=True, slots=True)
class PartForm:
    """`columns` are the job's own; `parquet` is None for JSON lines."""

    columns: tuple[str, ...]
    parquet: ParquetForm | None

    @classmethod
    def of(cls, rows: Rows, suffix: str, columns: tuple[str, ...]) -> PartForm:
        """The form of an output on `rows`."""
        is_parquet = suffix == ".parquet"
        return cls(columns, ParquetForm.of(rows, Path(suffix), columns) if is_parquet else None)

    def encode(self, lines: Sequence[dict[str, Any]], rows: Sequence[InputRow]) -> bytes:
        """A part of `lines`, each with the row that it is about."""
        if self.parquet is None:
            return b"".join(map(encode_line, lines))
        return self._parquet_bytes(self.parquet, lines, self.parquet.passed_on_arrays(rows))

    def decode(self, content: bytes, name: str) -> list[dict[str, Any]]:
        """A part's lines, without the input's other columns if it is Parquet.

        Raises:
            IntegrityError: the content is damaged.
        """
        try:
            if self.parquet is None:
                return [json.loads(line) for line in content.splitlines()]
            return list(read_parquet_lines(io.BytesIO(content), self.columns))
        except (ValueError, OSError, KeyError) as error:  # pyarrow's errors are of these
            raise IntegrityError(
                f"{name}: is damaged ({error}); remove it, and its rows are answered again"
            ) from error

    def replaced(self, content: bytes, name: str, lines: Mapping[int, dict[str, Any]]) -> bytes:
        """The part with `lines` in the places of its own, counted from 0."""
        merged = self.decode(content, name)
        for place, line in lines.items():
            merged[place] = line
        if self.parquet is None:
            return self.encode(merged, ())
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(io.BytesIO(content))
        others = [table.column(field) for field in self.parquet.passed_on.names]
        return self._parquet_bytes(self.parquet, merged, others)

    @staticmethod
    def _parquet_bytes(
        form: ParquetForm, lines: Sequence[dict[str, Any]], others: Sequence[Any]
    ) -> bytes:
        import pyarrow.parquet

        buffer = io.BytesIO()
        pyarrow.parquet.write_table(form.table(lines, others), buffer)
        return buffer.getvalue()
