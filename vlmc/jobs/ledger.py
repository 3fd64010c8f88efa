"""What an output is made from, kept beside it so that only the same job resumes it."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vlmc.errors import UsageError
from vlmc.files.atomic import sync
from vlmc.files.units import shorten
from vlmc.jobs.output.parts import LEDGER, PartsFolder

SCHEMA = 2


@dataclass(frozen=True, slots=True)
class Ledger:
    """Everything that decides an output's lines.

    `artifact` is the artifact's identity, `tiles` the tile rule as text, `input` what identifies
    the input, `prompts` pairs of question id and text, or None where the rows have their own, and
    `score` the measure by which choices are compared, or None where answers are generated.
    `thresholds` is the SHA-256 of the file of thresholds that decide the answers, if any.
    `part_rows` is how many rows a part holds, of an output that is a folder of parts.
    """

    artifact: str
    tiles: str
    input: str
    prompts: list[list[str]] | None
    choices: list[str] | None
    max_new_tokens: int | None
    confidence: bool
    score: str | None
    thresholds: str | None = None
    part_rows: int | None = None

    def differences(self, stored: dict[str, Any]) -> list[str]:
        """What differs from the stored ledger, in words."""
        lines = []
        for key, now in asdict(self).items():
            was = stored.get(key)
            if was != now:
                lines.append(f"{key.replace('_', ' ')}: was {_short(was)}, is {_short(now)}")
        return lines


class LedgerFile:
    """The stored ledger of an output."""

    def __init__(self, name: str, content: bytes, store: Callable[[bytes], None]) -> None:
        """`content` is empty for a new one; `store` replaces it."""
        self._name, self._content, self._store = name, content, store

    @property
    def part_rows(self) -> int | None:
        """The rows of a part, as an earlier run chose them."""
        found = (self._stored() or {}).get("part_rows")
        return found if isinstance(found, int) and found > 0 else None

    def bind(self, ledger: Ledger, out: object, started: bool) -> None:
        """Store the ledger of a new output, or compare with that of one already `started`.

        `UsageError` names what differs.
        """
        if not started:
            text = json.dumps({"schema": SCHEMA, **asdict(ledger)}, ensure_ascii=False, indent=1)
            self._store(text.encode("utf-8", "surrogatepass") + b"\n")
            return
        stored = self._stored()
        if stored is None:
            raise UsageError(
                f"{out}: exists, but its ledger {self._name} is missing or damaged, so "
                "what it was made from is unknown; choose another output or remove this one"
            )
        if stored.get("schema") != SCHEMA:
            raise UsageError(
                f"{out}: its ledger has schema {stored.get('schema')!r}, this version of vlmc "
                f"writes {SCHEMA}; choose another output"
            )
        differences = ledger.differences(stored)
        if differences:
            raise UsageError(
                f"{out}: was started as another job; "
                + "; ".join(differences)
                + ". Run it as it was started, choose another output, or remove this one"
            )

    def _stored(self) -> dict[str, Any] | None:
        try:
            stored = json.loads(self._content)
        except ValueError:
            return None
        return stored if isinstance(stored, dict) else None


@contextmanager
def locked_ledger(out: Path, path: Path | None = None) -> Iterator[LedgerFile]:
    """The locked ledger of `out`, at `path` or beside it; `UsageError` if another job holds the
    lock."""
    path = path or out.with_name(out.name + ".ledger.json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = path.open("r+b" if path.exists() else "x+b")
    except OSError as error:
        raise UsageError(f"{out}: cannot be written ({error}); choose another output") from error

    def store(content: bytes) -> None:
        # In place, because the lock belongs to this file. A ledger that a kill cut off is
        # rewritten, because the output has no line yet.
        file.seek(0)
        file.truncate()
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        sync(path.parent)

    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"{out}: another job is writing it; wait for that one or choose another output"
            ) from None
        try:
            yield LedgerFile(path.name, file.read(), store)
        finally:
            # One that was made only to be locked says nothing of the output.
            if path.exists() and not path.stat().st_size:
                path.unlink()


@contextmanager
def ledger_in(folder: PartsFolder) -> Iterator[LedgerFile]:
    """The ledger in an output that is a folder, locked where that is on this machine.

    Raises:
        UsageError: another job holds the lock, or the folder cannot be written.
    """
    if isinstance(folder.place, Path):
        with locked_ledger(folder.place, folder.place / LEDGER) as ledger:
            folder.remove_temporaries()
            yield ledger
        return
    folder.try_to_write()
    content = folder.read(LEDGER) if LEDGER in folder.names() else b""
    yield LedgerFile(LEDGER, content, lambda data: folder.write(LEDGER, data))


def _short(value: object) -> str:
    return shorten(json.dumps(value, ensure_ascii=False), 120)
