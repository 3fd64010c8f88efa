"""What long work shows on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from vlmc.jobs.job import Progress

SECONDS_BETWEEN_LINES = 10.0


class JobProgress:
    """Shows a job's progress while it is entered."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._plain = not console.is_terminal
        self._task = self._bar.add_task("answers", total=None, rate="")
        self._started = self._last = time.monotonic()
        self._first_done: int | None = None

    def __enter__(self) -> JobProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def show(self, progress: Progress) -> None:
        """Take over the newest counts."""
        if self._first_done is None:
            self._first_done = progress.done
        now = time.monotonic()
        answered = progress.done - self._first_done
        rate = f"{60 * answered / max(now - self._started, 1e-9):.0f} a minute"
        if progress.errors:
            rate += f", {progress.errors} errors"
        self._bar.update(self._task, completed=progress.done, total=progress.total, rate=rate)
        finished = progress.done == progress.total
        if self._plain and (finished or now - self._last >= SECONDS_BETWEEN_LINES):
            self._last = now
            print(f"{progress.done} of {progress.total} answers, {rate}", file=sys.stderr)


class StageProgress:
    """Shows stages that follow each other, each with a count, while it is entered."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._plain = not console.is_terminal
        self._tasks: dict[str, TaskID] = {}
        self._last = time.monotonic()

    def __enter__(self) -> StageProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def show(self, stage: str, done: int, total: int) -> None:
        """Take over the newest count of a stage."""
        if stage not in self._tasks:
            self._tasks[stage] = self._bar.add_task(stage, total=total)
        self._bar.update(self._tasks[stage], completed=done)
        now = time.monotonic()
        if self._plain and (done == total or now - self._last >= SECONDS_BETWEEN_LINES):
            self._last = now
            print(f"{stage}: {done} of {total}", file=sys.stderr)
