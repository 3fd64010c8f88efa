"""Progress as plain lines, for what is not a terminal."""

from __future__ import annotations

import sys
import time

from vlmc.cli.views.pace import Pace
from vlmc.files.units import bytes_text
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

_SECONDS_BETWEEN_LINES = 10.0


class PlainView:
    """Prints a line on stderr for each event.

    Progress is printed after ten seconds without a line, and when a count outside of steps is full.
    """

    def __init__(self) -> None:
        self._last_line = time.monotonic()
        self._paces: dict[str, Pace] = {}

    def receive(self, event: Event) -> None:
        """Take an event, and print its line if it is due."""
        line = plain_line(event)
        if isinstance(event, Progress):
            key = event.step or event.text
            before = self._paces.get(key)
            was_finished = before is not None and before.is_finished
            pace = self._paces[key] = Pace.following(before, event)
            just_finished = event.step is None and pace.is_finished and not was_finished
            if not just_finished and time.monotonic() - self._last_line < _SECONDS_BETWEEN_LINES:
                return
            line = pace.line if event.step is None else f"{event.step}: {pace.line}"
        self._last_line = time.monotonic()
        print(line, file=sys.stderr, flush=True)


def plain_line(event: Event) -> str:
    """The event as one line of text."""
    match event:
        case StepsPlanned(names):
            return f"steps: {', '.join(names)}"
        case StepWaiting(name):
            return f"{name}: another build runs this step, waiting for it"
        case StepDamaged(name, reason):
            return f"{name}: the cache's entry is damaged ({reason}), running the step again"
        case StepStarted(name):
            return f"{name}: started"
        case StepCached(name, seconds, _, size):
            return f"{name}: cached, {bytes_text(size)} (took {seconds:.1f} s)"
        case StepDone(name, seconds, peak, size):
            memory = "" if peak is None else f", memory peak {bytes_text(peak)}"
            return f"{name}: done in {seconds:.1f} s, {bytes_text(size)}{memory}"
        case Progress(step=step):
            return f"{f'{step}: ' if step else ''}{Pace(event).line}"
        case Note(text, step):
            return f"{step}: {text}" if step else text
