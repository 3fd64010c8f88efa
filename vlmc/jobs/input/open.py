"""Open a job's input: a folder, a glob, a table, shards or a single image."""

from __future__ import annotations

import glob
from pathlib import Path

from vlmc.errors import UsageError
from vlmc.image.source import describe, is_url
from vlmc.jobs.input.formats import Csv, JsonLines
from vlmc.jobs.input.image_files import image_file, images_matching, images_under
from vlmc.jobs.input.local_file import LocalFile, local_file, standard_input
from vlmc.jobs.input.openai_batch import BatchRows, is_batch
from vlmc.jobs.input.parquet import ParquetRows
from vlmc.jobs.input.remote import is_remote, location
from vlmc.jobs.input.remote_images import remote_images
from vlmc.jobs.input.rows import Rows
from vlmc.jobs.input.shards import find_shards, names_shards
from vlmc.jobs.input.table import TableRows
from vlmc.jobs.input.tar import TarRows

TABLES = {".jsonl", ".ndjson", ".csv", ".parquet"}


def open_input(text: str) -> Rows:
    """Open a folder, a glob, a table (.jsonl, .ndjson, .csv, .parquet), webdataset shards (.tar,
    .tar.gz, .tgz), or a single image; on this machine, or at an address of fsspec.

    JSON lines may be an OpenAI batch. `-` is JSON lines from stdin.

    Raises:
        UsageError: says why there is nothing to read, or which line of a table is wrong.
    """
    if text == "-":
        return _not_empty(_table(standard_input()))
    if is_url(text) and not is_remote(text):
        raise UsageError(
            f"{describe(text)}: is a web address; download it, or let fsspec read it as "
            f"simplecache::{describe(text)}"
        )
    if names_shards(text):
        return _not_empty(TarRows(text, find_shards(text)))
    place = location(text)
    if not isinstance(place, Path):
        is_table = place.suffix.lower() in TABLES
        return _not_empty(_table(local_file(place))) if is_table else remote_images(place)
    if place.is_dir():
        return images_under(place)
    if place.suffix.lower() in TABLES:
        return _not_empty(_table(local_file(place)))
    if place.is_file():
        return image_file(place)
    if glob.has_magic(text):
        return images_matching(text)
    raise UsageError(f"{text}: there is no such file or folder; check the path")


def _table(file: LocalFile) -> Rows:
    suffix = file.path.suffix.lower()
    if suffix == ".parquet":
        return ParquetRows(file)
    if suffix == ".csv":
        return TableRows(file, Csv())
    return BatchRows(file) if is_batch(file.path) else TableRows(file, JsonLines())


def _not_empty(rows: Rows) -> Rows:
    if len(rows) == 0:
        raise UsageError(f"{rows.source}: has no row; add one")
    return rows
