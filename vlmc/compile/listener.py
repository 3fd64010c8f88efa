"""How far a step's work is, told to whoever builds; nobody listens where it is called by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Tell = Callable[[str], None]


def _nobody(text: str) -> None:
    pass


_listener: ContextVar[Tell] = ContextVar("listener", default=_nobody)


def tell(text: str) -> None:
    """Say how far the work is, such as `layer 3 of 32`."""
    _listener.get()(text)


@contextmanager
def listening(listener: Tell) -> Iterator[None]:
    """Let `listener` hear what is told within."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
