"""The channel by which any code reports events. It is local to a thread or task, as contexts are.

Without a receiver, as in library use, events are dropped.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace

from vlmc.progress.events import Event, Note, Progress

Report = Callable[[Event], None]

_receiver: ContextVar[Report | None] = ContextVar("receiver", default=None)


def report(event: Event) -> None:
    """Pass an event to the receiver, if there is one."""
    receive = _receiver.get()
    if receive is not None:
        receive(event)


@contextmanager
def receiving(receive: Report) -> Iterator[None]:
    """Pass every event within to `receive`, and to no receiver further out."""
    token = _receiver.set(receive)
    try:
        yield
    finally:
        _receiver.reset(token)


@contextmanager
def reporting_step(name: str) -> Iterator[None]:
    """Name the step of a build in the progress and notes within."""
    receive = _receiver.get()

    def with_step(event: Event) -> None:
        if receive is not None:
            receive(replace(event, step=name) if isinstance(event, Progress | Note) else event)

    with receiving(with_step):
        yield


@contextmanager
def notes_on_stderr() -> Iterator[None]:
    """Print the notes within on stderr, unless there is a receiver already."""

    def show(event: Event) -> None:
        if isinstance(event, Note):
            print(event.text, file=sys.stderr)

    with receiving(_receiver.get() or show):
        yield
