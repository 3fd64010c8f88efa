"""Progress on a terminal: a live table of a build's steps, and a bar for all other work."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vlmc.cli.views.pace import Pace
from vlmc.cli.views.plain_view import plain_line
from vlmc.files.units import bytes_text, duration_text
from vlmc.progress.events import (
    Event,
    Note,
    Progress,
    StepCached,
    StepDamaged,
    StepDone,
    StepsPlanned,
    StepStarted,
    StepWaiting,
)

_REFRESHES_PER_SECOND = 4
_BAR_WIDTH = 40
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
    pace: Pace | None = None
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


class TerminalView:
    """Shows events while it is entered.

    A cached step shows in brackets the time that it took when it ran.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows: dict[str, _Row] = {}
        self._bars: dict[str, Pace] = {}
        self._live = Live(
            console=self._console,
            get_renderable=self._render,
            refresh_per_second=_REFRESHES_PER_SECOND,
            # The result goes to stdout, untouched.
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> TerminalView:
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

    def receive(self, event: Event) -> None:
        """Take an event and show it."""
        match event:
            case StepsPlanned(names):
                self._rows = {name: _Row() for name in names}
                self._live.start()
            case StepWaiting(name):
                self._row(name).state = "waiting"
            case StepStarted(name):
                row = self._row(name)
                row.state, row.started = "running", time.monotonic()
            case StepCached(name, seconds, peak, size):
                self._rows[name] = _Row("cached", None, seconds, None, peak, size)
            case StepDone(name, seconds, peak, size):
                self._rows[name] = _Row("built", None, seconds, None, peak, size)
            case Progress(step=None):
                # Work that is not counted ends where other work begins.
                self._bars = {
                    text: pace
                    for text, pace in self._bars.items()
                    if text == event.text or pace.latest.done is not None
                }
                self._bars[event.text] = Pace.following(self._bars.get(event.text), event)
                self._live.start()
            case Progress(step=str(name)):
                row = self._row(name)
                row.pace = Pace.following(row.pace, event)
            case StepDamaged() | Note():
                # Above a live table. As it is: brackets in a path are not markup.
                line = plain_line(event)
                self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        # Progress may come often, and the next regular refresh shows it.
        if self._live.is_started and not isinstance(event, Progress):
            self._live.refresh()

    def _row(self, name: str) -> _Row:
        return self._rows.setdefault(name, _Row())

    def _render(self) -> Group:
        # Copies: this runs in the thread that refreshes, while events add to them.
        rows, bars = list(self._rows.items()), list(self._bars.values())
        return Group(
            *([_steps_table(rows)] if rows else []),
            *([_bars_table(bars)] if bars else []),
            *(Text(pace.shares, style="dim") for pace in bars if pace.shares),
        )


def _steps_table(rows: list[tuple[str, _Row]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("step", no_wrap=True)
    table.add_column("state", no_wrap=True, min_width=len("running"))
    table.add_column("time", justify="right", no_wrap=True, min_width=8)
    table.add_column("memory peak", justify="right", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True, min_width=8)
    table.add_column("", style="dim", no_wrap=True)
    for name, row in rows:
        table.add_row(
            Text(name, style="dim" if row.state == "to do" else ""),
            Text(row.state, style=_STYLES[row.state]),
            row.time_text,
            "" if row.peak_memory_bytes is None else bytes_text(row.peak_memory_bytes),
            "" if row.size_bytes is None else bytes_text(row.size_bytes),
            Text("" if row.pace is None else row.pace.line),
            style="dim" if row.state == "cached" else "",
        )
    return table


def _bars_table(bars: list[Pace]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for pace in bars:
        total, done = pace.latest.total, pace.latest.done
        bar = "" if total is None else ProgressBar(total, done or 0, width=_BAR_WIDTH)
        table.add_row(Text(pace.latest.text), bar, pace.count, pace.rate, pace.time_left)
    return table
