"""What a request ends in: its result, or its own error."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import Future
from contextlib import closing
from typing import TypeVar

from vlmc.errors import VlmcError

Result = TypeVar("Result")


def outcome(future: Future[Result]) -> Result | VlmcError:
    """The result of a request, once it is there, or the error that belongs to it."""
    try:
        return future.result()
    except VlmcError as error:
        return error


def raising(outcomes: Generator[Result | VlmcError, None, None]) -> Iterator[Result]:
    """The results up to the first error, which is raised."""
    with closing(outcomes):
        for found in outcomes:
            if isinstance(found, VlmcError):
                raise found
            yield found
