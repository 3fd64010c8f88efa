"""Why a job begins no more requests: too many errors, a deadline, or an interrupt."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

from vlmc.files.units import duration_text
from vlmc.jobs.input.questions import Question
from vlmc.progress.channel import report
from vlmc.progress.events import Note


class Stop:
    """Ends the questions of a job early; what the model was given before is still answered."""

    def __init__(
        self,
        *,
        max_errors: int | None = None,
        seconds: float | None = None,
        since: float | None = None,
    ) -> None:
        """`max_errors` counts the rows with an error in this run. `seconds` are counted from
        `since`, a time of the monotonic clock, by default now.
        """
        self._max_errors, self._seconds = max_errors, seconds
        self._since = time.monotonic() if since is None else since
        self._error_rows, self._last_error = 0, -1
        self._requested: str | None = None
        self._announced = self._begun = False

    def begin(self) -> None:
        """Requests run from now on, which an interrupt lets end."""
        self._begun = True

    def interrupt(self) -> None:
        """Stop by Ctrl-C or SIGTERM.

        Raises:
            KeyboardInterrupt: no requests run yet, so that nothing has to end in order.
        """
        if not self._begun:
            raise KeyboardInterrupt
        self.request("it was interrupted")

    def request(self, reason: str) -> None:
        """Stop for a reason of your own."""
        self._requested = self._requested or reason

    def add_error(self, row: int) -> None:
        """Count a row with an error; its errors follow each other."""
        self._error_rows += row != self._last_error
        self._last_error = row
        self.check_errors(self._error_rows)

    def check_errors(self, rows: int) -> None:
        """Stop if so many rows with an error are too many."""
        if self._max_errors is not None and rows >= self._max_errors:
            most = f"{self._max_errors:,} row{'s' * (self._max_errors != 1)}"
            self.request(f"{most} ended in an error (--max-errors)")

    @property
    def reason(self) -> str | None:
        """Why the job stops, or None."""
        if self._seconds is not None and time.monotonic() - self._since >= self._seconds:
            self.request(f"the deadline of {duration_text(self._seconds)} has passed")
        return self._requested

    def announce(self) -> None:
        """Report once that the job stops, if it does, while requests run."""
        if self.reason is not None and not self._announced:
            self._announced = True
            report(Note(f"{self.reason}; finishing the requests that run"))

    def until(self, questions: Iterable[Question]) -> Iterator[Question]:
        """The questions up to the stop."""
        self.begin()
        for question in questions:
            if self.reason is not None:
                self.announce()
                return
            yield question


@contextmanager
def stopping_on_interrupt(stop: Stop) -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM within stop the job in order once requests run, and any other
    end it at once."""

    def interrupted() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        stop.interrupt()

    with _handling_interrupts(interrupted):
        yield


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Let a Ctrl-C or SIGTERM within take effect at the end of the block, as a Ctrl-C: for calls of
    libraries that do not survive one, or that take over the signal."""
    interrupts: list[bool] = []
    with _handling_interrupts(lambda: interrupts.append(True)):
        yield
    if interrupts:
        signal.raise_signal(signal.SIGINT)


@contextmanager
def _handling_interrupts(handle: Callable[[], object]) -> Iterator[None]:
    """Call `handle` at Ctrl-C or SIGTERM within; only the main thread can do so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def interrupted(_number: int, _frame: FrameType | None) -> None:
        handle()

    for number in before:
        signal.signal(number, interrupted)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
