"""From recorded spans to what the device did at every moment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from vlmc.runtime.requests.timeline import Span

Stage = Literal["language_prefill", "language_decode", "vision", "copy"]
STAGES: tuple[Stage, ...] = ("language_prefill", "language_decode", "vision", "copy")
"""Where two overlap on the device, the time counts for the first of them."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A stage's work from `start` to `end`, in seconds since the run began."""

    stage: str
    start: float
    end: float


def device_bars(spans: Iterable[Span]) -> list[Bar]:
    """What the device did. A step of the language model that prefills and decodes in the same
    products is divided by its tokens."""
    bars: list[Bar] = []
    for span in spans:
        start, end = span.device_start, span.device_end
        if span.name in ("vision", "copy"):
            bars.append(Bar(span.name, start, end))
        elif span.name == "language":
            tokens = sum(row.count for row in span.rows)
            decoded = sum(row.count for row in span.rows if row.is_decode)
            middle = end - (end - start) * decoded / tokens
            if decoded < tokens:
                bars.append(Bar("language_prefill", start, middle))
            if decoded:
                bars.append(Bar("language_decode", middle, end))
    return bars


def stage_seconds(bars: Sequence[Bar], wall: float) -> dict[str, float]:
    """Seconds of each stage within the run, and `idle`; together they are `wall`."""
    seconds: dict[str, float] = {}
    intervals: list[tuple[float, float]] = []
    before = 0.0
    for stage in STAGES:
        intervals += [(bar.start, bar.end) for bar in bars if bar.stage == stage]
        covered = _covered(intervals, wall)
        seconds[stage] = covered - before
        before = covered
    seconds["idle"] = wall - before
    return seconds


def _covered(intervals: Iterable[tuple[float, float]], wall: float) -> float:
    """Length of the union of intervals, as far as it lies between 0 and `wall`."""
    covered, reached = 0.0, 0.0
    for start, end in sorted(intervals):
        start, end = max(start, reached), min(end, wall)
        if end > start:
            covered += end - start
            reached = end
    return covered
