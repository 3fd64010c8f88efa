"""What a build shows on stderr: a live table of its steps on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from vlmc.files.units import bytes_text, duration_text
from vlmc.progress.events import (
    Event,
    Note,
    StepCached,
    StepDamaged,
    StepDone,
    StepProgress,
    StepsPlanned,
    StepStarted,
    StepWaiting,
    plain_line,
)

_REFRESHES_PER_SECOND = 4
# In lines, which nothing wipes away, how far a step is comes after so long a silence alone.
_SECONDS_BETWEEN_LINES = 10
_STYLES = {
    "to do": "dim",
    "waiting": "yellow",
    "running": "bold cyan",
    "cached": "green",
    "built": "bold green",
    "stopped": "bold red",
}


@dataclass(slots=True)
class _Row:
    """A step as the table shows it; `started` is of the monotonic clock, in seconds."""

    state: str = "to do"
    started: float | None = None
    seconds: float | None = None
    progress: str = ""
    peak_memory_bytes: int | None = None
    size_bytes: int | None = None

    @property
    def elapsed(self) -> float | None:
        if self.started is not None and self.seconds is None:
            return time.monotonic() - self.started
        return self.seconds

    @property
    def time_text(self) -> str:
        if self.elapsed is None:
            return ""
        text = duration_text(self.elapsed)
        return f"({text})" if self.state == "cached" else text


class BuildProgress:
    """Shows a build's events while it is entered.

    A step that the cache has shows in brackets the time that it took when it was made.
    """

    def __init__(self, console: Console | None = None) -> None:
        """`console` None is stderr."""
        self._console = Console(stderr=True) if console is None else console
        self._rows: dict[str, _Row] = {}
        self._told = 0.0  # when the last line was written, by the monotonic clock
        self._live = Live(
            console=self._console,
            get_renderable=self._table,
            refresh_per_second=_REFRESHES_PER_SECOND,
            # The result goes to stdout, untouched.
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> BuildProgress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            for row in self._rows.values():
                if row.state in ("running", "waiting"):
                    row.state, row.seconds = "stopped", row.elapsed
        if self._live.is_started:
            self._live.stop()

    def report(self, event: Event) -> None:
        """Take over an event."""
        if not self._console.is_terminal:
            if isinstance(event, StepProgress) and not self._time_to_tell():
                return
            self._told = time.monotonic()
            self._line(plain_line(event))
            return
        match event:
            case StepsPlanned(names):
                self._rows = {name: _Row() for name in names}
                self._live.start()
            case StepWaiting(name):
                self._row(name).state = "waiting"
            case StepDamaged():
                self._line(plain_line(event))
            case StepStarted(name):
                row = self._row(name)
                row.state, row.started = "running", time.monotonic()
            case StepProgress(name, text):
                self._row(name).progress = text
            case StepCached(name, seconds, peak, size):
                self._rows[name] = _Row("cached", None, seconds, "", peak, size)
            case StepDone(name, seconds, peak, size):
                self._rows[name] = _Row("built", None, seconds, "", peak, size)
            case Note(text):
                self._line(text)
        if self._live.is_started:
            self._live.refresh()

    def _time_to_tell(self) -> bool:
        return time.monotonic() - self._told >= _SECONDS_BETWEEN_LINES

    def _row(self, name: str) -> _Row:
        return self._rows.setdefault(name, _Row())

    def _line(self, text: str) -> None:
        # Above a live table. As it is: brackets in a path are no markup.
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        table.add_column("step", no_wrap=True)
        table.add_column("state", no_wrap=True, min_width=len("running"))
        table.add_column("time", justify="right", no_wrap=True, min_width=8)
        table.add_column("memory peak", justify="right", no_wrap=True)
        table.add_column("size", justify="right", no_wrap=True, min_width=8)
        table.add_column("", style="dim", no_wrap=True)
        for name, row in self._rows.items():
            style = _STYLES[row.state]
            table.add_row(
                Text(name, style="dim" if row.state == "to do" else ""),
                Text(row.state, style=style),
                row.time_text,
                "" if row.peak_memory_bytes is None else bytes_text(row.peak_memory_bytes),
                "" if row.size_bytes is None else bytes_text(row.size_bytes),
                Text(row.progress),
                style="dim" if row.state == "cached" else "",
            )
        return table
