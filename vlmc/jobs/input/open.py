"""Open what a job is pointed at: a folder, a glob, a table or a single image."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Iterator
from pathlib import Path

from vlmc.errors import UsageError
from vlmc.jobs.input.jsonl import JsonlRows
from vlmc.jobs.input.parquet import ParquetRows
from vlmc.jobs.input.rows import InputRow, Rows

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jp2", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
)


class ImageFiles:
    """Image files by path: a folder, a glob or a single one."""

    columns: tuple[str, ...] = ()
    prompted = False

    def __init__(self, source: str, paths: list[Path]) -> None:
        self.source = source
        self._paths = paths

    @property
    def digest(self) -> str:
        names = b"\0".join(
            path.as_posix().encode("utf-8", "surrogateescape") for path in self._paths
        )
        return hashlib.sha256(names).hexdigest()

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, start: int = 0) -> Iterator[InputRow]:
        for number, path in enumerate(self._paths[start:], start):
            yield InputRow(number, path, path.as_posix())


def open_input(text: str) -> Rows:
    """Open a folder, glob, `.jsonl` or `.parquet` file, or a single image.

    `UsageError` says why there is nothing to read, or which line of a table is wrong.
    """
    path = Path(text)
    if path.is_dir():
        return _folder(path)
    if path.suffix == ".jsonl":
        return _not_empty(JsonlRows(path))
    if path.suffix == ".parquet":
        return _not_empty(ParquetRows(path))
    if path.is_file():
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            raise UsageError(
                f"{path}: is neither a table (.jsonl, .parquet) nor an image "
                f"({' '.join(sorted(IMAGE_SUFFIXES))}); an image of another name can be listed "
                "in a .jsonl"
            )
        return ImageFiles(text, [path])
    if glob.has_magic(text):
        # `Path.glob` takes no absolute pattern.
        matches = [Path(match) for match in glob.glob(text, recursive=True)]  # noqa: PTH207
        paths = sorted(path for path in matches if path.is_file() and _is_image_name(path))
        if not paths:
            raise UsageError(f"{text}: none of the {len(matches)} matches is an image file")
        return ImageFiles(text, paths)
    raise UsageError(f"{text}: there is no such file or folder; check the path")


def _folder(folder: Path) -> ImageFiles:
    paths = sorted(_images_under(folder, ()))
    if not paths:
        raise UsageError(
            f"{folder}: holds no image file ({' '.join(sorted(IMAGE_SUFFIXES))}), at any depth"
        )
    return ImageFiles(str(folder), paths)


def _images_under(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """Image files at any depth; links to folders are followed, but not in circles."""
    place = folder.resolve()
    if place in above:
        return
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise UsageError(f"{folder}: cannot be listed ({error.strerror})") from error
    for entry in entries:
        if entry.is_dir() and not entry.name.startswith("."):
            yield from _images_under(entry, (*above, place))
        elif _is_image_name(entry) and entry.is_file():
            yield entry


def _is_image_name(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _not_empty(rows: Rows) -> Rows:
    if len(rows) == 0:
        raise UsageError(f"{rows.source}: holds no row; there is nothing to do")
    return rows
