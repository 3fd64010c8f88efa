"""What a request ends in: its result, or its own error."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, closing, nullcontext
from typing import TypeVar

from vlmc.errors import VlmcError

Request = TypeVar("Request")
Result = TypeVar("Result")


def outcome(future: Future[Result]) -> Result | VlmcError:
    """The result of a request, once it is there, or the error that belongs to it."""
    try:
        return future.result()
    except VlmcError as error:
        return error


def in_order(
    requests: Iterable[Request],
    start: Callable[[Request], Future[Result]],
    ahead: Callable[[], int],
    guard: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Generator[Result | VlmcError, None, None]:
    """Start requests ahead, and yield their outcomes in order.

    Args:
        start: begins a request.
        ahead: how many may be started before the first outcome is waited for.
        guard: is entered for every start and every wait.
    """
    waiting: deque[Future[Result]] = deque()
    try:
        for request in requests:
            with guard():
                waiting.append(start(request))
            while waiting and (waiting[0].done() or len(waiting) >= ahead()):
                with guard():
                    result = outcome(waiting.popleft())
                yield result
        while waiting:
            with guard():
                result = outcome(waiting.popleft())
            yield result
    finally:
        for future in waiting:
            future.cancel()


def raising(outcomes: Generator[Result | VlmcError, None, None]) -> Iterator[Result]:
    """The results up to the first error, which is raised."""
    with closing(outcomes):
        for found in outcomes:
            if isinstance(found, VlmcError):
                raise found
            yield found
