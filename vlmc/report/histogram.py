"""Counts by class, as pictures."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence

from vlmc.report.columns import draw_columns

_LEAST_CLASSES = 8


def draw_histograms(
    title: str,
    edges: Sequence[float | None],
    series: Mapping[str, Sequence[int]],
    colours: Mapping[str, str],
    *,
    limit: tuple[float, str] | None = None,
) -> list[str]:
    """An SVG document for each series that counts anything, all of the same classes, of which
    empty ends are cut off.

    Args:
        title: what is counted.
        edges: of the classes, ascending, one more than counts; the last may be None, for no end.
        series: counts of each class, by name.
        colours: by name of the series.
        limit: a value to mark, and its text; the classes beside it are shown although empty.
    """
    classes = len(edges) - 1
    filled = [i for i in range(classes) if any(counts[i] for counts in series.values())]
    place = 0.0
    if limit is not None:
        place = _place(edges, limit[0])
        filled += [max(math.ceil(place) - 1, 0), min(int(place), classes - 1)]
    first, last = _shown(filled, classes)
    return [
        draw_columns(
            f"{title}, {name}: {sum(counts)}",
            counts[first:last],
            [str(count) if count else "" for count in counts[first:last]],
            [_edge_text(edge) for edge in edges[first : last + 1]],
            colours[name],
            mark=None if limit is None else (place - first, limit[1]),
        )
        for name, counts in series.items()
        if any(counts)
    ]


def _place(edges: Sequence[float | None], value: float) -> float:
    """Where a value is, in classes from the first edge."""
    bounds = [math.inf if edge is None else edge for edge in edges]
    index = min(max(bisect.bisect_right(bounds, value) - 1, 0), len(bounds) - 2)
    low, high = bounds[index], bounds[index + 1]
    return index + (0.0 if high == math.inf else (value - low) / (high - low))


def _shown(filled: Sequence[int], classes: int) -> tuple[int, int]:
    """First class and end, of some more than those that are filled where these are few."""
    first, last = (min(filled), max(filled) + 1) if filled else (0, classes)
    while last - first < min(_LEAST_CLASSES, classes):
        first, last = max(first - 1, 0), min(last + 1, classes)
    return first, last


def _edge_text(edge: float | None) -> str:
    if edge is None:
        return "∞"
    return f"{edge:.0e}".replace("e-0", "e-") if 0 < edge < 0.01 else f"{edge:g}"
