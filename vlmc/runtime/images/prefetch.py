"""Prepare requests ahead of the model, in order and bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from vlmc.errors import VlmcError
from vlmc.runtime.images.prepare import PreparedRequest

Prepared = PreparedRequest | VlmcError

PREFETCH_REQUESTS = 16
MAX_GROUP = 16


def prefetch(
    requests: Iterable[object], prepare: Callable[[object], PreparedRequest]
) -> Generator[Prepared, None, None]:
    """Prepared requests in order, an unusable one as its error.

    `requests` is iterated on the caller's thread, at most `PREFETCH_REQUESTS` ahead of the model.
    Preparation runs on one thread beside the model's.
    """

    def attempt(request: object) -> Prepared:
        try:
            return prepare(request)
        except VlmcError as error:
            return error

    waiting: deque[Future[Prepared]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="vlmc-prepare") as pool:
        try:
            for request in requests:
                waiting.append(pool.submit(attempt, request))
                if len(waiting) > PREFETCH_REQUESTS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def group_by_images(prepared: Iterable[Prepared]) -> Iterator[list[PreparedRequest] | VlmcError]:
    """Runs of consecutive requests with the same images and prefix, at most `MAX_GROUP` each."""
    group: list[PreparedRequest] = []
    for item in prepared:
        belongs = (
            group
            and isinstance(item, PreparedRequest)
            and len(group) < MAX_GROUP
            and item.images
            and item.prefix_key == group[0].prefix_key
        )
        if group and not belongs:
            yield group
            group = []
        if isinstance(item, VlmcError):
            yield item
        else:
            group.append(item)
    if group:
        yield group
