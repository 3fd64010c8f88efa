"""Events from another process: one JSON line each."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from vlmc.progress.events import Event, Note, Progress

_TYPES: dict[str, type[Progress | Note]] = {"Progress": Progress, "Note": Note}


def to_line(event: Event) -> str:
    """Progress or a note as one line, for `from_line`."""
    return json.dumps([type(event).__name__, asdict(event)])


def from_line(line: str) -> Event:
    """The event that `to_line` wrote."""
    name, fields = json.loads(line)
    values: dict[str, Any] = {
        # JSON has no tuples.
        key: tuple(value) if isinstance(value, list) else value
        for key, value in fields.items()
    }
    return _TYPES[name](**values)
