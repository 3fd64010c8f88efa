"""The output's lines on disk, appended in whole batches, so that a killed job can resume."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlmc.errors import IntegrityError, VlmcError
from vlmc.files.atomic import atomic_path, sync
from vlmc.jobs.output.failures import Failures

BATCH_LINES = 256
BATCH_SECONDS = 1.0


class Journal:
    """A JSONL file that grows by whole, fsynced batches of lines.

    A kill can cut off the last line at most; `recover` removes it. A failed write, as on a
    full disk, is undone before `VlmcError` is raised, and its lines are dropped.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pending: list[bytes] = []
        self._flushed_at = time.monotonic()
        self._file = path.open("ab", buffering=0)
        sync(path.parent)

    def append(self, values: Mapping[str, Any]) -> None:
        """Add a line; it reaches the disk with its batch."""
        self._pending.append(encode_line(values))
        late = time.monotonic() - self._flushed_at >= BATCH_SECONDS
        if late or len(self._pending) >= BATCH_LINES:
            self.flush()

    def flush(self) -> None:
        """Bring every line added so far to the disk."""
        rest = memoryview(b"".join(self._pending))
        size = os.fstat(self._file.fileno()).st_size
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            os.ftruncate(self._file.fileno(), size)
            raise VlmcError(
                f"{self._path}: cannot be written ({error.strerror}); the lines before are kept. "
                "Make room, and run the same command again to resume"
            ) from error
        finally:
            self._pending = []
        self._flushed_at = time.monotonic()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.flush()
        finally:
            self._file.close()


@dataclass(slots=True)
class Finished:
    """How many lines are done, and which of them hold an error."""

    lines: int = 0
    failures: Failures = field(default_factory=Failures)


def recover(path: Path, check: Callable[[int, Mapping[str, Any]], bool]) -> Finished:
    """Remove a half-written tail and count the whole lines; a missing file has none.

    `check(index, line)` says whether a line belongs there. `IntegrityError` if a line before the
    end is damaged or does not belong.
    """
    finished = Finished()
    if not path.exists():
        return finished
    good = 0
    with path.open("r+b") as file:
        damaged = None
        for index, raw in enumerate(file):
            values = _parse(raw)
            if values is None:
                # Only the tail may be damaged; a good line behind it means something else.
                damaged = damaged or index + 1
                continue
            if damaged is not None:
                raise IntegrityError(
                    f"{path}:{damaged}: is damaged although later lines are whole, so the job was "
                    "not just killed; restore the file or choose another output"
                )
            if not check(index, values):
                raise IntegrityError(
                    f"{path}:{index + 1}: is not the line that this job writes there, so the file "
                    "was changed; restore it or choose another output"
                )
            good += len(raw)
            finished.lines += 1
            finished.failures.add(index, values)
        if damaged is not None:
            file.truncate(good)
            os.fsync(file.fileno())
    return finished


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a journal that `recover` has checked."""
    with path.open("rb") as file:
        for raw in file:
            yield json.loads(raw)


def replace_lines(path: Path, corrections: Path) -> None:
    """Replace the lines of `path` by those of `corrections` with the same row and question.

    Both hold their lines in the same order. The file is replaced in one step, and then
    `corrections` is removed.
    """

    def merged() -> Iterator[bytes]:
        pending = read_journal(corrections)
        correction = next(pending, None)
        for values in read_journal(path):
            if correction is not None and _key(values) == _key(correction):
                values, correction = correction, next(pending, None)
            yield encode_line(values)
        if correction is not None:
            raise IntegrityError(
                f"{corrections}: has lines that {path.name} does not have; remove it"
            )

    write_chunks(path, merged())
    corrections.unlink()


def write_chunks(path: Path, chunks: Iterable[bytes]) -> None:
    """Replace the content of `path` in one step."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.writelines(chunks)


def encode_line(values: Mapping[str, Any]) -> bytes:
    """A JSON object and a line feed. Numbers that JSON lacks (NaN, infinity) become null."""
    try:
        text = json.dumps(values, ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(values), ensure_ascii=False, allow_nan=False)
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:
        # File names that are not UTF-8 hold lone surrogates, which only an escape can carry.
        return json.dumps(json.loads(text)).encode() + b"\n"


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return value


def _parse(raw: bytes) -> dict[str, Any] | None:
    if not raw.endswith(b"\n"):
        return None
    try:
        values = json.loads(raw)
    except ValueError:
        return None
    return values if isinstance(values, dict) else None


def _key(values: Mapping[str, Any]) -> tuple[Any, Any]:
    # A line without `row` is an OpenAI result.
    return values.get("row", values.get("id")), values.get("question")
