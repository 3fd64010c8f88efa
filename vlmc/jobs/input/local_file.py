"""A table's content as a file on this machine, whatever it is read from."""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from vlmc.errors import UsageError
from vlmc.files.hashing import file_sha256
from vlmc.jobs.input.remote import Location, opened


@dataclass(frozen=True, slots=True)
class LocalFile:
    """`path` may be a temporary copy, which is removed with this object.

    `source` is what messages call the table, and `folder` what its relative paths begin at.
    """

    path: Path
    source: str
    folder: Location
    copy: IO[bytes] | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of the bytes; `UsageError` if they cannot be read."""
        try:
            return file_sha256(self.path)
        except FileNotFoundError:
            raise UsageError(f"{self.source}: there is no such file; check the path") from None
        except OSError as error:
            raise UsageError(f"{self.source}: cannot be read ({error.strerror})") from error


def local_file(place: Location) -> LocalFile:
    """The file itself, or a copy of a remote one, since tables are read more than once."""
    if isinstance(place, Path):
        return LocalFile(place, str(place), place.parent)
    with opened(place) as file:
        return _copied(file, place.suffix, place.url, place.parent)


def standard_input() -> LocalFile:
    """A copy of stdin, which are JSON lines. Paths are relative to the current folder."""
    return _copied(sys.stdin.buffer, ".jsonl", "stdin", Path())


def _copied(file: IO[bytes], suffix: str, source: str, folder: Location) -> LocalFile:
    copy = tempfile.NamedTemporaryFile(suffix=suffix)  # noqa: SIM115 - held by the result
    shutil.copyfileobj(file, copy)
    copy.flush()
    return LocalFile(Path(copy.name), source, folder, copy)
