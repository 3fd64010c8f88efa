"""A picture of what ran when: a lane for each device or thread, a bar for each piece of work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vlmc.report import svg

_WIDTH, _LEFT, _RIGHT, _TOP, _LANE, _BOTTOM = 960, 120, 20, 62, 20, 30
_TICKS = 8
_THINNEST = 0.4


def draw_timeline(
    title: str,
    lanes: Sequence[tuple[str, Sequence[tuple[str, float, float]]]],
    seconds: float,
    colours: Mapping[str, str],
) -> str:
    """An SVG document.

    Args:
        title: what was run.
        lanes: name of each lane with its bars: kind, start and end in seconds.
        seconds: where the time axis ends; bars beyond are cut off.
        colours: of each kind, in the order of the legend.
    """
    scale = (_WIDTH - _LEFT - _RIGHT) / seconds
    bottom = _TOP + _LANE * len(lanes)
    parts = [svg.text(12, 22, title, size=15)]
    for column, (kind, colour) in enumerate(colours.items()):
        x = 12 + 150 * column
        parts.append(svg.rect(x, 34, 10, 10, colour))
        parts.append(svg.text(x + 15, 43, kind))
    for index, (name, bars) in enumerate(lanes):
        y = _TOP + _LANE * index
        parts.append(svg.text(_LEFT - 8, y + 13, name, anchor="end"))
        for kind, start, end in bars:
            if start >= seconds:
                continue
            width = max(_THINNEST, (min(end, seconds) - start) * scale)
            parts.append(svg.rect(_LEFT + start * scale, y + 2, width, _LANE - 4, colours[kind]))
    for tick in range(_TICKS + 1):
        place = _LEFT + (_WIDTH - _LEFT - _RIGHT) * tick / _TICKS
        # The last one ends with the axis, so that it is not cut off.
        anchor: svg.Anchor = "middle" if tick < _TICKS else "end"
        label = f"{seconds * tick / _TICKS:.3g} s"
        parts.append(svg.text(place, bottom + 16, label, anchor=anchor))
    return svg.document(_WIDTH, bottom + _BOTTOM, parts)
