"""What rank 0 of a group sends its followers before each step, so that they run it too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum

import numpy as np

from vlmc.distributed.channel import to_json
from vlmc.distributed.followers import Followers
from vlmc.models.language.packed_batch import Row


class Order(IntEnum):
    """Kinds of messages to a follower."""

    STEP = 1
    REPLAY = 2
    COPY_PAGE = 3
    ENCODE = 4
    REFERENCE = 5


class Lead:
    """Sends every step to the followers; does nothing where there are none."""

    def __init__(self, followers: Followers | None = None) -> None:
        self._followers = followers

    @property
    def is_alone(self) -> bool:
        """Whether there are no followers."""
        return self._followers is None

    def step(self, rows: Sequence[Row], chosen: Sequence[int]) -> None:
        """Announce a step; logits of the rows in `chosen` are needed."""
        if self._followers is not None:
            self._followers.send(Order.STEP, pack_rows(rows, chosen))

    def replay(self, rows: Sequence[Row]) -> None:
        """Announce the replay of a decode graph."""
        if self._followers is not None:
            self._followers.send(Order.REPLAY, pack_rows(rows, ()))

    def copy_page(self, source: int, target: int) -> None:
        """Announce the copy of a page of the cache."""
        if self._followers is not None:
            self._followers.send(Order.COPY_PAGE, np.array([source, target], np.int32).tobytes())

    @contextmanager
    def encode(self, tiles: int) -> Iterator[None]:
        """Announce a batch of tiles, which is encoded within."""
        if self._followers is not None:
            self._followers.send(Order.ENCODE, np.array([tiles], np.int32).tobytes())
        with self._announced():
            yield

    @contextmanager
    def reference(
        self,
        tokens: int,
        max_new_tokens: int,
        stop_id: int,
        choices: Sequence[tuple[int, ...]] | None,
    ) -> Iterator[None]:
        """Announce a prompt of the reference path by its length, and what follows it; it is run
        within."""
        if self._followers is not None:
            values = [tokens, max_new_tokens, stop_id, choices]
            self._followers.send(Order.REFERENCE, to_json(values))
        with self._announced():
            yield

    def check(self) -> None:
        """Raise the error of a follower that has failed: what was computed since is not valid."""
        if self._followers is not None:
            self._followers.check()

    def explain(self, error: Exception) -> Exception:
        """What to report for an error of a step; where there are followers, no step follows it."""
        return error if self._followers is None else self._followers.failure(error)

    def close(self) -> None:
        """End the followers."""
        if self._followers is not None:
            self._followers.close()

    @contextmanager
    def _announced(self) -> Iterator[None]:
        """Run what was announced: an error within leaves the followers out of step.

        Raises:
            VlmcError: in place of that error, where there are followers.
        """
        try:
            yield
        except Exception as error:
            if self._followers is None:
                raise
            raise self._followers.failure(error) from error


def pack_rows(rows: Sequence[Row], chosen: Sequence[int]) -> bytes:
    """Rows of a step and indices among them, for `unpack_rows`."""
    flat = [len(rows), len(chosen), *chosen]
    for row in rows:
        flat += (row.start, row.count, row.length, len(row.pages), *row.pages)
    return np.array(flat, np.int32).tobytes()


def unpack_rows(payload: bytes) -> tuple[list[Row], list[int]]:
    """What `pack_rows` packed."""
    flat: list[int] = np.frombuffer(payload, np.int32).tolist()
    count, at = flat[0], 2 + flat[1]
    chosen, rows = flat[2:at], []
    for _ in range(count):
        start, new, length, pages = flat[at : at + 4]
        at += 4
        rows.append(Row(start, new, length, flat[at : at + pages]))
        at += pages
    return rows, chosen
