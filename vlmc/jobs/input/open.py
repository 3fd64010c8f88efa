"""Open a job's input: a folder, a glob, a table or a single image."""

from __future__ import annotations

import glob
from pathlib import Path

from vlmc.errors import UsageError
from vlmc.jobs.input.image_files import image_file, images_matching, images_under
from vlmc.jobs.input.jsonl import JsonlRows
from vlmc.jobs.input.parquet import ParquetRows
from vlmc.jobs.input.rows import Rows


def open_input(text: str) -> Rows:
    """Open a folder, glob, `.jsonl` or `.parquet` file, or a single image.

    Raises:
        UsageError: says why there is nothing to read, or which line of a table is wrong.
    """
    path = Path(text)
    if path.is_dir():
        return images_under(path)
    if path.suffix == ".jsonl":
        return _not_empty(JsonlRows(path))
    if path.suffix == ".parquet":
        return _not_empty(ParquetRows(path))
    if path.is_file():
        return image_file(path)
    if glob.has_magic(text):
        return images_matching(text)
    raise UsageError(f"{text}: there is no such file or folder; check the path")


def _not_empty(rows: Rows) -> Rows:
    if len(rows) == 0:
        raise UsageError(f"{rows.source}: holds no row; there is nothing to do")
    return rows
