"""The beginning of a run as a picture: device, launching thread, and image workers."""

from __future__ import annotations

from collections import defaultdict

from vlmc.bench.measure import Run
from vlmc.report import svg
from vlmc.report.timeline import draw_timeline

_COLOURS = {
    "vision": svg.BLUE,
    "language prefill": svg.GREEN,
    "language decode": svg.AMBER,
    "copy": svg.VIOLET,
    "launch": svg.GREY,
    "decode and tile": svg.RED,
}
# More than a page can show, and a file of some hundred kilobytes.
_MOST_BARS = 1200
_SHORTEST = 1e-3

Lane = list[tuple[str, float, float]]


def draw_run(title: str, run: Run) -> str:
    """An SVG document of as much of a run as fits."""
    lanes: dict[str, Lane] = {"device": [], "launches": []}
    for bar in run.bars:
        lanes["device"].append((bar.stage.replace("_", " "), bar.start, bar.end))
    workers: dict[str, Lane] = defaultdict(list)
    for span in run.spans:
        if span.name == "prepare":
            workers[span.thread].append(("decode and tile", span.start, span.end))
        elif span.name in ("vision", "language", "copy"):
            lanes["launches"].append(("launch", span.start, span.end))
    for number, thread in enumerate(sorted(workers), 1):
        lanes[f"images {number}"] = workers[thread]
    starts = sorted(start for lane in lanes.values() for _, start, _ in lane)
    seconds = max(_SHORTEST, run.wall)
    if len(starts) > _MOST_BARS:
        seconds = max(_SHORTEST, min(seconds, starts[_MOST_BARS]))
    return draw_timeline(title, list(lanes.items()), seconds, _COLOURS)
