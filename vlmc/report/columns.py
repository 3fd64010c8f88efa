"""A small picture of columns (SVG), as wide as a page on a phone."""

from __future__ import annotations

from collections.abc import Sequence

from vlmc.report import svg

_WIDTH, _HEIGHT, _SIDE, _TOP, _BOTTOM = 358, 176, 22, 44, 24
_GAP = 2
# Of a label in 10 pixels, so that neighbours do not overlap.
_LETTER = 6.2


def draw_columns(
    title: str,
    heights: Sequence[float],
    texts: Sequence[str],
    labels: Sequence[str],
    colour: str,
    *,
    highest: float | None = None,
    mark: tuple[float, str] | None = None,
) -> str:
    """An SVG document.

    Args:
        title: one line.
        heights: of each column, zero or more.
        texts: above each column.
        labels: under each column, or one more of them, under their edges. Labels are left out
            where they would overlap.
        colour: of the columns, seen on light and dark pages.
        highest: the height that fills the picture; without, the highest column.
        mark: a place to draw a line at, as a number of columns from the left, and its text.
    """
    step = (_WIDTH - 2 * _SIDE) / max(len(heights), 1)
    bottom = _HEIGHT - _BOTTOM
    scale = (bottom - _TOP) / ((max(heights, default=0.0) if highest is None else highest) or 1.0)
    parts = [svg.text(_SIDE, 16, title, size=12)]
    for index, (height, text) in enumerate(zip(heights, texts, strict=True)):
        x, pixels = _SIDE + step * index, height * scale
        parts.append(svg.rect(x + _GAP / 2, bottom - pixels, step - _GAP, pixels, colour))
        parts.append(svg.text(x + step / 2, bottom - pixels - 4, text, anchor="middle"))
    parts.append(svg.rect(_SIDE, bottom, _WIDTH - 2 * _SIDE, 1, svg.GREY))
    at_edges = len(labels) > len(heights)
    free = 0.0
    for index, label in enumerate(labels):
        x = _SIDE + step * (index if at_edges else index + 0.5)
        half = _LETTER * len(label) / 2
        if x - half >= free:
            parts.append(svg.text(x, bottom + 16, label, anchor="middle"))
            free = x + half + 4
    if mark is not None:
        place, text = mark
        x = _SIDE + step * place
        parts.append(svg.rect(x - 0.5, _TOP - 14, 1, bottom - _TOP + 14, svg.RED))
        right = place > len(heights) / 2
        anchor: svg.Anchor = "end" if right else "start"
        parts.append(svg.text(x + (-4 if right else 4), _TOP - 16, text, anchor=anchor, dim=True))
    return svg.document(_WIDTH, _HEIGHT, parts)
