"""Open a job's input: a folder, a glob, a table or a single image."""

from __future__ import annotations

import glob
from pathlib import Path

from vlmc.errors import UsageError
from vlmc.jobs.input.formats import Csv, JsonLines
from vlmc.jobs.input.image_files import image_file, images_matching, images_under
from vlmc.jobs.input.parquet import ParquetRows
from vlmc.jobs.input.rows import Rows
from vlmc.jobs.input.table import StandardInput, TableRows


def open_input(text: str) -> Rows:
    """Open a folder, a glob, a table (.jsonl, .ndjson, .csv, .parquet), or a single image.

    `-` is JSON lines from stdin.

    Raises:
        UsageError: says why there is nothing to read, or which line of a table is wrong.
    """
    if text == "-":
        return _not_empty(StandardInput())
    path = Path(text)
    if path.is_dir():
        return images_under(path)
    suffix = path.suffix.lower()
    if suffix in {".jsonl", ".ndjson"}:
        return _not_empty(TableRows(path, JsonLines()))
    if suffix == ".csv":
        return _not_empty(TableRows(path, Csv()))
    if suffix == ".parquet":
        return _not_empty(ParquetRows(path))
    if path.is_file():
        return image_file(path)
    if glob.has_magic(text):
        return images_matching(text)
    raise UsageError(f"{text}: there is no such file or folder; check the path")


def _not_empty(rows: Rows) -> Rows:
    if len(rows) == 0:
        raise UsageError(f"{rows.source}: has no row; add one")
    return rows
