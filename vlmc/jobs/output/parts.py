"""An output that is a folder of parts: each holds the lines of consecutive rows, and is written
whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vlmc.errors import IntegrityError, UsageError, VlmcError
from vlmc.files.atomic import write_atomically
from vlmc.jobs.input.remote import Location, file_system, location, place_text

SUFFIXES = (".jsonl", ".ndjson", ".parquet")
LEDGER, INDEX, _PROBE = "_ledger.json", "_files.jsonl", "_probe"
"""Readers of folders of Parquet leave out names that begin so."""
_NAME = re.compile(r"part-(\d{12})-(\d{12})")
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")


@dataclass(frozen=True, slots=True, order=True)
class RowRange:
    """The rows `first` to `last`, both included."""

    first: int
    last: int

    @property
    def name(self) -> str:
        """The name of their part, without its suffix; names sort as rows do."""
        return f"part-{self.first:012}-{self.last:012}"

    def holds(self, other: RowRange) -> bool:
        """Whether all rows of the other one are among these."""
        return self.first <= other.first and other.last <= self.last


@dataclass(frozen=True, slots=True)
class PartsFolder:
    """The folder at `place`, whose parts end in `suffix`.

    Files appear whole: on this machine by a rename, at an address of fsspec by one upload.
    """

    place: Location
    suffix: str

    @classmethod
    def of(cls, text: str) -> PartsFolder:
        """The folder that an output such as `answers.jsonl` or `s3://bucket/answers.parquet` names.

        Raises:
            UsageError: it has another suffix, or a file is in its place.
        """
        place = location(text.removeprefix("file://").rstrip("/"))
        if place.suffix not in SUFFIXES:
            raise UsageError(f"{text}: the output must end in .jsonl, .ndjson or .parquet")
        folder = cls(place, place.suffix)
        if isinstance(place, Path):
            is_file = place.exists() and not place.is_dir()
        else:
            system, path = file_system(place.url)
            is_file = bool(system.isfile(path))
        if is_file:
            raise UsageError(
                f"{text}: is a file, and --ray writes a folder of parts; choose another output, or "
                "leave --ray out to resume a job that ran without it"
            )
        return folder

    def __str__(self) -> str:
        return place_text(self.place)

    def absolute(self) -> PartsFolder:
        """The same folder for processes that run elsewhere on this machine."""
        place = self.place.absolute() if isinstance(self.place, Path) else self.place
        return PartsFolder(place, self.suffix)

    def names(self) -> list[str]:
        """The names of its files, in order; none if it does not exist."""
        if isinstance(self.place, Path):
            return sorted(path.name for path in self.place.iterdir()) if self.place.exists() else []
        system, path = file_system(self.place.url)
        system.invalidate_cache()
        try:
            found = system.ls(path, detail=False)
        except FileNotFoundError:
            return []
        return sorted(str(name).rstrip("/").rpartition("/")[2] for name in found)

    def parts(self) -> list[RowRange]:
        """The parts, in the order of their rows.

        A part whose rows all are in a longer one holds the same lines, and is removed: its writer
        ended before it could say so, and another wrote the longer one.

        Raises:
            IntegrityError: two parts overlap in another way.
        """
        found: list[RowRange] = []
        for rows in sorted(self._ranges(), key=lambda rows: (rows.first, -rows.last)):
            if found and found[-1].holds(rows):
                self.remove(rows.name + self.suffix)
            elif found and rows.first <= found[-1].last:
                raise IntegrityError(
                    f"{self}: {found[-1].name} and {rows.name} hold the same rows, which vlmc "
                    "never writes; remove one of them"
                )
            else:
                found.append(rows)
        return found

    def read(self, name: str) -> bytes:
        """A file's content.

        Raises:
            VlmcError: it cannot be read.
        """
        try:
            if isinstance(self.place, Path):
                return (self.place / name).read_bytes()
            system, path = file_system((self.place / name).url)
            content: bytes = system.cat_file(path)
        except OSError as error:
            raise VlmcError(f"{self}/{name}: cannot be read ({error})") from error
        return content

    def write(self, name: str, content: bytes) -> None:
        """Replace a file in one step.

        Raises:
            VlmcError: it cannot be written.
        """
        try:
            if isinstance(self.place, Path):
                self.place.mkdir(parents=True, exist_ok=True)
                write_atomically(self.place / name, content)
            else:
                system, path = file_system((self.place / name).url)
                system.makedirs(path.rpartition("/")[0], exist_ok=True)
                system.pipe_file(path, content)
        except (OSError, NotImplementedError) as error:
            raise VlmcError(
                f"{self}/{name}: cannot be written ({error}). Finished parts are kept"
            ) from error

    def remove_temporaries(self) -> None:
        """Remove what killed writers left."""
        for name in filter(_TEMPORARY.fullmatch, self.names()):
            self.remove(name)

    def try_to_write(self) -> None:
        """Find out before the first question whether the folder can be written.

        Raises:
            UsageError: it cannot.
        """
        try:
            self.write(_PROBE, b"vlmc")
            self.remove(_PROBE)
        except (VlmcError, OSError) as error:
            raise UsageError(f"{error}; choose another output") from error

    def remove(self, name: str) -> None:
        """Remove a file."""
        if isinstance(self.place, Path):
            (self.place / name).unlink(missing_ok=True)
        else:
            system, path = file_system((self.place / name).url)
            system.rm_file(path)

    def _ranges(self) -> Iterator[RowRange]:
        for name in self.names():
            match = _NAME.fullmatch(name.removesuffix(self.suffix))
            if match and name.endswith(self.suffix):
                yield RowRange(int(match[1]), int(match[2]))


def uncovered(parts: Iterable[RowRange], rows: int) -> Iterator[RowRange]:
    """The ranges of `rows` rows that no part holds, in order."""
    start = 0
    for part in parts:
        if part.first > start:
            yield RowRange(start, part.first - 1)
        start = part.last + 1
    if start < rows:
        yield RowRange(start, rows - 1)
