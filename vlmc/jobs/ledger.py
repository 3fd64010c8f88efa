"""What an output is made from, kept beside it so that only the same job resumes it."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from vlmc.errors import UsageError
from vlmc.files.atomic import sync
from vlmc.files.units import shorten

SCHEMA = 2


@dataclass(frozen=True, slots=True)
class Ledger:
    """Everything that decides an output's lines.

    `artifact` is the artifact's identity, `tiles` the tile rule as text, `input` what identifies
    the input, `prompts` pairs of question id and text, or None where the rows have their own, and
    `score` the measure by which choices are compared, or None where answers are generated.
    `thresholds` is the SHA-256 of the file of thresholds that decide the answers, if any.
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

    def differences(self, stored: dict[str, Any]) -> list[str]:
        """What differs from the stored ledger, in words."""
        lines = []
        for key, now in asdict(self).items():
            was = stored.get(key)
            if was != now:
                lines.append(f"{key.replace('_', ' ')}: was {_short(was)}, is {_short(now)}")
        return lines


class LedgerFile:
    """The ledger of an output, locked for as long as the job runs."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path = path
        self._file = file

    def bind(self, ledger: Ledger, out: Path, started: bool) -> None:
        """Store the ledger of a new output, or compare with that of one already `started`.

        `UsageError` names what differs.
        """
        self._file.seek(0)
        content = self._file.read()
        if not started:
            self._store(ledger)
            return
        try:
            stored = json.loads(content)
        except ValueError:
            stored = None
        if not isinstance(stored, dict):
            if not content:
                self._path.unlink()
            raise UsageError(
                f"{out}: exists, but its ledger {self._path.name} is missing or damaged, so "
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

    def _store(self, ledger: Ledger) -> None:
        text = json.dumps({"schema": SCHEMA, **asdict(ledger)}, ensure_ascii=False, indent=1)
        # In place, because the lock belongs to this file. A ledger that a kill cut off is
        # rewritten, because the output has no line yet.
        self._file.seek(0)
        self._file.truncate()
        self._file.write(text.encode("utf-8", "surrogatepass") + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        sync(self._path.parent)


@contextmanager
def locked_ledger(out: Path) -> Iterator[LedgerFile]:
    """The locked ledger of `out`; `UsageError` if another job holds the lock."""
    path = out.with_name(out.name + ".ledger.json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = path.open("r+b" if path.exists() else "x+b")
    except OSError as error:
        raise UsageError(f"{out}: cannot be written ({error}); choose another output") from error
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"{out}: another job is writing it; wait for that one or choose another output"
            ) from None
        yield LedgerFile(path, file)


def _short(value: object) -> str:
    return shorten(json.dumps(value, ensure_ascii=False), 120)
