"""Record what a running model does, and when: spans of work on its threads and on its device.

Nothing is recorded, and nothing is paid for it, outside of `recording`. As with torch's profiler a
recording covers the whole process: the threads of a model report to it without being given it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

import torch

from vlmc.errors import UsageError
from vlmc.models.flops import RowWork

Name = Literal["request", "prepare", "copy", "vision", "language"]


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of work, in seconds since the recording began.

    `start` and `end` are the host's: of a GPU's work, when it was launched. `device_start` and
    `device_end` are when the device did it. A request lasts from its submission to its answer.
    """

    name: Name
    thread: str
    start: float
    end: float
    device_start: float
    device_end: float
    tiles: int
    rows: tuple[RowWork, ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    name: Name
    thread: str
    start: float
    end: float
    events: tuple[Any, Any] | None
    tiles: int
    rows: tuple[RowWork, ...]


class Recorder:
    """Collects spans; device times are events, which are read only when the work is over."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._entries: list[_Entry] = []
        self._base = None
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            self._base = _record(device)
            self._base.synchronize()
        self._begin = time.perf_counter()

    def spans(self) -> list[Span]:
        """All spans, by their start on the host. Waits for the device."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        found = []
        for entry in self._entries:
            start, end = entry.start - self._begin, entry.end - self._begin
            device_start, device_end = start, end
            if entry.events is not None and self._base is not None:
                first, last = entry.events
                device_start = self._base.elapsed_time(first) / 1e3
                device_end = self._base.elapsed_time(last) / 1e3
            found.append(
                Span(
                    entry.name,
                    entry.thread,
                    start,
                    end,
                    device_start,
                    device_end,
                    entry.tiles,
                    entry.rows,
                )
            )
        return sorted(found, key=lambda span: span.start)

    def add(self, entry: _Entry) -> None:
        """Keep an entry, from any thread."""
        self._entries.append(entry)


_recorder: Recorder | None = None
_OFF = nullcontext()


@contextmanager
def recording(device: torch.device) -> Iterator[Recorder]:
    """Record everything within; `device` is where the models run.

    Raises:
        UsageError: a recording is under way.
    """
    global _recorder
    if _recorder is not None:
        raise UsageError("a recording is under way; end it before you begin another")
    _recorder = Recorder(device)
    try:
        yield _recorder
    finally:
        _recorder = None


def span(
    name: Name,
    device: torch.device | None = None,
    *,
    tiles: int = 0,
    rows: Callable[[], Sequence[RowWork]] | None = None,
) -> AbstractContextManager[None]:
    """Record the work within.

    Args:
        name: the stage.
        device: where the work runs, if it is launched on a device.
        tiles: tiles that it is about.
        rows: called only while recording; the rows of a step of the language model.
    """
    recorder = _recorder
    if recorder is None:
        return _OFF
    return _Open(recorder, name, device, tiles, () if rows is None else tuple(rows()))


def follow(future: Future[Any]) -> None:
    """Record a request from now until its future is done."""
    recorder = _recorder
    if recorder is None:
        return
    begin = time.perf_counter()

    def done(_: Future[Any]) -> None:
        thread = threading.current_thread().name
        recorder.add(_Entry("request", thread, begin, time.perf_counter(), None, 0, ()))

    future.add_done_callback(done)


class _Open:
    """A span that has begun."""

    def __init__(
        self,
        recorder: Recorder,
        name: Name,
        device: torch.device | None,
        tiles: int,
        rows: tuple[RowWork, ...],
    ) -> None:
        self._recorder, self._name, self._tiles, self._rows = recorder, name, tiles, rows
        self._device = device if device is not None and device.type == "cuda" else None
        self._first: Any = None
        self._start = 0.0

    def __enter__(self) -> None:
        self._start = time.perf_counter()
        self._first = None if self._device is None else _record(self._device)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        events = None if self._device is None else (self._first, _record(self._device))
        self._recorder.add(
            _Entry(
                self._name,
                threading.current_thread().name,
                self._start,
                time.perf_counter(),
                events,
                self._tiles,
                self._rows,
            )
        )


def _record(device: torch.device) -> Any:
    event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event
