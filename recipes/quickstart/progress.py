"""How far the answers are: one updating line on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vlmc.files.units import duration_text

SECONDS_BETWEEN_LINES = 10.0


class AnswerProgress:
    """Shows on stderr how many answers are done and the time left, while it is entered."""

    def __init__(self, total: int, console: Console | None = None) -> None:
        """`console` None is stderr."""
        self._console = Console(stderr=True) if console is None else console
        self._bar = Progress(
            TextColumn("answers by {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total)
        self._total, self._done = total, 0
        self._last = time.monotonic()
        # The time left is reckoned from the first answer on: loading the model comes before it.
        self._first: float | None = None

    def __enter__(self) -> AnswerProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def show(self, rule: str) -> None:
        """Count an answer by `rule`."""
        self._done += 1
        self._bar.update(self._task, completed=self._done, description=rule)
        now = time.monotonic()
        if self._first is None:
            self._first = now
        if not self._console.is_terminal and now - self._last >= SECONDS_BETWEEN_LINES:
            self._last = now
            self._console.print(
                f"{self._done} of {self._total} answers, by {rule} now{self._time_left(now)}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )

    def _time_left(self, now: float) -> str:
        if self._first is None or self._done == 1:
            return ""
        left = (now - self._first) / (self._done - 1) * (self._total - self._done)
        return f", about {duration_text(left)} left"
