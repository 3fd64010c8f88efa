"""Lines and CPU time of a job that is measured."""

from __future__ import annotations

import os
import time
from pathlib import Path

from vlmc.progress.events import Event, Progress

_TICKS = os.sysconf("SC_CLK_TCK")


class CpuTime:
    """The CPU time of this process and all below it, of those that have ended too."""

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}

    def now(self) -> float:
        """Seconds so far; processes that end between two calls lose what they did since."""
        found: dict[int, tuple[int, float]] = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                values = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            ticks = int(values[11]) + int(values[12])
            found[int(path.parent.name)] = int(values[1]), ticks / _TICKS
        for pid, (_, seconds) in found.items():
            above = pid
            while above in found and above != os.getpid():
                above = found[above][0]
            if above == os.getpid():
                self._seconds[pid] = seconds
        return sum(self._seconds.values())


class Marks:
    """Time, CPU time and lines of a job in this process, from the first eighth of its lines on.

    The processes are counted every `seconds`, and at the end: seldom misses what those do last that
    end, and often takes time from the job, where a machine has hundreds of them.
    """

    def __init__(self, seconds: float = 0.5) -> None:
        self._started, self._cpu, self._seconds = time.monotonic(), CpuTime(), seconds
        self._begun: float | None = None
        self._first: tuple[float, float, int] | None = None
        self._last = (0.0, 0.0, 0)

    def receive(self, event: Event) -> None:
        """Take the job's progress."""
        if not isinstance(event, Progress) or event.done is None or event.total is None:
            return
        now = time.monotonic()
        self._begun = self._begun or now
        is_new = event.done > self._last[2] and event.done >= event.total / 8
        if is_new and (event.done == event.total or now - self._last[0] >= self._seconds):
            self._last = now, self._cpu.now(), event.done
            self._first = self._first or self._last

    def figures(self) -> dict[str, float]:
        """Rows a second, CPU a row, and the seconds before the first question."""
        if self._first is None or self._begun is None:
            raise SystemExit("the job was too short to be measured; give more --rows")
        seconds, cpu, rows = (b - a for a, b in zip(self._first, self._last, strict=True))
        return {
            "rows_per_second": rows / seconds,
            "cpu_ms_per_row": 1e3 * cpu / rows,
            "start_seconds": self._begun - self._started,
        }
