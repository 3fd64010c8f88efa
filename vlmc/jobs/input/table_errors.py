"""All errors of a table's first pass in one message."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vlmc.errors import UsageError

SHOWN = 10


class TableErrors:
    """Collects the errors of single rows, and keeps the first `SHOWN`."""

    def __init__(self, source: object) -> None:
        self._source = source
        self._shown: list[str] = []
        self._count = 0

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Collect a `UsageError` that is raised within."""
        try:
            yield
        except UsageError as error:
            self._count += 1
            if len(self._shown) < SHOWN:
                self._shown.append(str(error))

    def raise_if_any(self) -> None:
        """Raise `UsageError` with what was collected."""
        if self._count == 1:
            raise UsageError(self._shown[0])
        if self._count:
            more = self._count - len(self._shown)
            lines = [*self._shown, *([f"… and {more:,} more"] if more else [])]
            raise UsageError(
                f"{self._source}: {self._count:,} rows have errors:\n  " + "\n  ".join(lines)
            )
