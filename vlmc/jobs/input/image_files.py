"""Image files of a folder or a glob, recognized by their content, or a single one."""

from __future__ import annotations

import glob
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from vlmc.errors import UsageError
from vlmc.image.formats import IMAGE_SUFFIXES, RAW_SUFFIXES, looks_like_image
from vlmc.jobs.input.remote import Location
from vlmc.jobs.input.rows import InputRow


class ImageFiles:
    """Image files in a fixed order."""

    columns: tuple[str, ...] = ()
    prompted = text_only = False

    def __init__(self, source: str, paths: Sequence[Location], left_out: Mapping[str, int]) -> None:
        self.source, self.left_out = source, left_out
        self.paths = paths

    def of(self, paths: Sequence[Location]) -> ImageFiles:
        """The same input with other files."""
        return ImageFiles(self.source, paths, self.left_out)

    @property
    def identity(self) -> str:
        return self.source

    def image_counts(self) -> frozenset[int]:
        return frozenset({1})

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, start: int = 0) -> Iterator[InputRow]:
        for number, path in enumerate(self.paths[start:], start):
            yield InputRow(number, path, path.as_posix())


def image_file(path: Path) -> ImageFiles:
    """A single image file.

    Raises:
        UsageError: neither its suffix nor its first bytes are those of an image.
    """
    if kind_left_out(path) is not None:
        raise UsageError(
            f"{path}: is neither a table (.jsonl, .ndjson, .csv, .parquet) nor an image that can "
            "be read"
        )
    return ImageFiles(str(path), [path], {})


def images_under(folder: Path) -> ImageFiles:
    """All images in a folder, at any depth.

    A file counts as an image by its suffix or by its first bytes. Files and folders whose name
    begins with a dot are left out.

    Raises:
        UsageError: there is no image, or a folder cannot be listed.
    """
    left_out: Counter[str] = Counter()
    paths = sorted(_walk(folder, (), left_out))
    if not paths:
        raise UsageError(f"{folder}: has no image file, at any depth{but_left_out(left_out)}")
    return ImageFiles(str(folder), paths, left_out)


def images_matching(pattern: str) -> ImageFiles:
    """All images that a glob pattern matches.

    A pattern whose last part is `*` or `**` takes what a folder takes. Any other pattern takes
    every file that it matches.

    Raises:
        UsageError: no file matches.
    """
    everything = not Path(pattern).name.strip("*")
    # `Path.glob` takes no absolute pattern.
    matches = [Path(match) for match in glob.glob(pattern, recursive=True)]  # noqa: PTH207
    paths, left_out = [], Counter[str]()
    for path in sorted(matches):
        if path.is_dir():
            if "**" not in pattern:
                left_out["folder"] += 1
        elif everything and (kind := kind_left_out(path)) is not None:
            left_out[kind] += 1
        else:
            paths.append(path)
    if not paths:
        raise UsageError(
            f"{pattern}: none of the {len(matches)} matches is an image file"
            + but_left_out(left_out)
        )
    return ImageFiles(pattern, paths, left_out)


def kinds_text(left_out: Mapping[str, int]) -> str:
    """`3 .txt, 1 .db`, the most frequent first."""
    kinds = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {kind}" for kind, count in kinds)


def kind_left_out(path: Path) -> str | None:
    """The kind under which a file is left out, or None for an image."""
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return None
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return "not a regular file"
        if suffix not in RAW_SUFFIXES and looks_like_image(path):
            return None
    except FileNotFoundError:
        return "broken link"
    except OSError:
        return "unreadable"
    return suffix or "without suffix"


def _walk(folder: Path, above: tuple[Path, ...], left_out: Counter[str]) -> Iterator[Path]:
    """Image files at any depth; links to folders are followed, except in circles."""
    place = folder.resolve()
    if place in above:
        return
    try:
        with os.scandir(folder) as listing:
            entries = list(listing)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be listed ({error.strerror})") from error
    for entry in entries:
        path = folder / entry.name
        if entry.name.startswith("."):
            left_out["hidden"] += 1
        elif entry.is_dir():
            yield from _walk(path, (*above, place), left_out)
        elif (kind := kind_left_out(path)) is not None:
            left_out[kind] += 1
        else:
            yield path


def but_left_out(left_out: Mapping[str, int]) -> str:
    """What was left out, to add to a message that there is no image."""
    if not left_out:
        return ""
    shards = "; give webdataset shards as a pattern, such as 'FOLDER/*.tar'"
    return f" (left out: {kinds_text(left_out)}){shards if '.tar' in left_out else ''}"
