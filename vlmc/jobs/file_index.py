"""Which image files an output's rows are about, by path and content, kept beside the output."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from vlmc.errors import IntegrityError, UsageError
from vlmc.jobs.input.image_files import ImageFiles
from vlmc.jobs.input.remote import RemoteFile, is_remote, location
from vlmc.jobs.output.journal import encode_line, write_chunks
from vlmc.progress.channel import report
from vlmc.progress.events import Progress

REPORT_FILES = 1000


@dataclass(frozen=True, slots=True)
class InputChanges:
    """Image files that were added, removed or changed since the output was begun."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)

    def __str__(self) -> str:
        """`added: 2 (a.jpg, b.jpg); removed: 1 (c.jpg)`."""
        kinds = [(kind, names) for kind, names in asdict(self).items() if names]
        return "; ".join(f"{kind}: {len(names)} ({_some(names)})" for kind, names in kinds)


@dataclass(frozen=True, slots=True)
class IndexedFile:
    """A file's path and content; size and time say that the content need not be read again.

    All but the path are None for a file that could not be read. Of a remote file, `sha256` is of
    what the store says of its present content.
    """

    path: str
    size: int | None = None
    mtime_ns: int | None = None
    sha256: str | None = None

    def now(self) -> IndexedFile:
        """The file as it is now; it is read only if its size or time has changed."""
        if is_remote(self.path):
            return IndexedFile(self.path, sha256=RemoteFile(self.path).version())
        path = Path(self.path)
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                return IndexedFile(self.path)
            if (status.st_size, status.st_mtime_ns) == (self.size, self.mtime_ns):
                return self
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return IndexedFile(self.path)
        return IndexedFile(self.path, status.st_size, status.st_mtime_ns, digest)


class FileIndex:
    """The files of an output's rows, in the order of its rows.

    Files of an earlier run keep their rows, and new ones follow. `rows` reads all of them.
    """

    def __init__(self, path: Path, files: ImageFiles, started: bool) -> None:
        self._path = path
        self._changed: dict[int, IndexedFile] = {}
        stored = list(_read(path)) if started else []
        found = {name.as_posix(): name for name in files.paths}
        known = {file.path for file in stored}
        new = [name for name in found if name not in known]
        self._removed = tuple(file.path for file in stored if file.path not in found)
        self._added = tuple(new) if started else ()
        self._files: list[IndexedFile] = []
        total = len(stored) + len(new)
        for number, file in enumerate([*stored, *map(IndexedFile, new)]):
            if number and number % REPORT_FILES == 0:
                report(Progress("files", number, total))
            current = file.now()
            if number < len(stored) and file.path in found and current.sha256 != file.sha256:
                self._changed[number] = current
                current = file
            self._files.append(current if file.path in found else file)
        self.rows = files.of([found.get(file.path, location(file.path)) for file in self._files])

    @property
    def changes(self) -> InputChanges:
        changed = tuple(self._files[row].path for row in self._changed)
        return InputChanges(self._added, self._removed, changed)

    def accept(self, unanswered: Callable[[int], bool]) -> None:
        """Take the present content of changed files for rows that have no answer to keep."""
        for row in [row for row in self._changed if unanswered(row)]:
            self._files[row] = self._changed.pop(row)

    def save(self) -> None:
        """Replace the stored index, before a row that it adds is answered."""
        write_chunks(self._path, (encode_line(asdict(file)) for file in self._files))


def refuse_changes(out: object, changes: InputChanges) -> None:
    """`UsageError` if there are changes."""
    if changes:
        raise UsageError(
            f"{out}: its image files have changed since it was begun, and --strict-input refuses "
            f"that; {changes}. Restore them, choose another output, or leave the option out"
        )


def _read(path: Path) -> Iterator[IndexedFile]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield replace(IndexedFile(""), **json.loads(line))
                except (ValueError, TypeError) as error:
                    raise IntegrityError(
                        f"{path}:{number}: is damaged ({error}); restore the file or choose "
                        "another output"
                    ) from error
    except OSError as error:
        raise IntegrityError(
            f"{path}: cannot be read ({error.strerror}), so the files of the output's rows are "
            "unknown; restore it or choose another output"
        ) from error


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
