"""Questions with their images prepared by tasks, a few rows a task, some tasks ahead."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

from vlmc.jobs.input.questions import Question
from vlmc.jobs.input.rows import ImageInput
from vlmc.jobs.ray.prepare import Images

CHUNK_ROWS, CHUNK_TILES = 16, 32
"""What a task prepares at most: so much that its overhead is small, and no more than 20 MB."""
CHUNKS_AHEAD = 6

Reference = TypeVar("Reference")


def prepared_ahead(
    questions: Iterable[Question],
    most_tiles: int,
    start: Callable[[list[ImageInput | None]], Reference],
    get: Callable[[Reference], Images],
) -> Iterator[Question]:
    """The questions, with prepared images in place of theirs.

    An image has `most_tiles` at most. `start` begins to prepare the images of some rows, and `get`
    waits for the result.
    """
    pending: deque[tuple[list[list[Question]], Reference]] = deque()
    for chunk in _chunks(questions, max(1, min(CHUNK_ROWS, CHUNK_TILES // most_tiles))):
        pending.append((chunk, start([group[0].row.image for group in chunk])))
        if len(pending) > CHUNKS_AHEAD:
            yield from _finished(*pending.popleft(), get)
    while pending:
        yield from _finished(*pending.popleft(), get)


def _chunks(questions: Iterable[Question], size: int) -> Iterator[list[list[Question]]]:
    """Groups of questions on one row each, `size` groups at once."""
    rows = (
        list(group) for _, group in itertools.groupby(questions, lambda question: id(question.row))
    )
    while chunk := list(itertools.islice(rows, size)):
        yield chunk


def _finished(
    chunk: list[list[Question]], reference: Reference, get: Callable[[Reference], Images]
) -> Iterator[Question]:
    for group, images in zip(chunk, get(reference), strict=True):
        row = replace(group[0].row, image=list(images) if isinstance(images, list) else images)
        for question in group:
            yield replace(question, row=row)
