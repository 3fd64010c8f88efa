"""What a step says of its work to whoever builds; nobody listens where it is called by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

Tell = Callable[[str], None]


def _nobody(text: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class _Listener:
    progress: Tell = _nobody
    notes: Tell = _nobody


_NOBODY = _Listener()
_listener: ContextVar[_Listener] = ContextVar("listener", default=_NOBODY)


def tell(text: str) -> None:
    """Say how far the work is, such as `layer 3 of 32`; the next takes its place."""
    _listener.get().progress(text)


def note(text: str) -> None:
    """Say what has to be read: that the work is done in another way than was to be expected."""
    _listener.get().notes(text)


@contextmanager
def listening(progress: Tell, notes: Tell) -> Iterator[None]:
    """Let these hear what is told, and what is noted, within."""
    token = _listener.set(_Listener(progress, notes))
    try:
        yield
    finally:
        _listener.reset(token)
