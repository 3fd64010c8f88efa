"""A picture of values by decoder layer: a line for each kind of linear (SVG)."""

from __future__ import annotations

from collections.abc import Mapping

from vlmc.report import svg

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _BOTTOM, _TOP = 960, 360, 60, 180, 40, 30
_COLOURS = ("#3b8ec9", "#e8801a", "#3a9d3a", "#d94a4a", "#9b78c4", "#a0695c", "#1fa8b8")


def draw_lines(title: str, lines: Mapping[str, Mapping[int, float]], layers: int) -> str:
    """An SVG document of `lines`, each with its values by layer, of `layers` layers."""
    highest = max((value for points in lines.values() for value in points.values()), default=0.0)
    last = max(layers - 1, 1)

    def place(layer: int, value: float) -> tuple[float, float]:
        x = _LEFT + layer / last * (_WIDTH - _LEFT - _RIGHT)
        y = _HEIGHT - _BOTTOM - value / (highest or 1.0) * (_HEIGHT - _BOTTOM - _TOP)
        return x, y

    parts = [
        svg.text(_LEFT, 18, title, size=12),
        svg.text(_LEFT - 8, _TOP + 4, f"{highest:.3f}", anchor="end"),
        svg.text(_LEFT - 8, _HEIGHT - _BOTTOM + 4, "0", anchor="end"),
        svg.text(_LEFT, _HEIGHT - 12, "0", anchor="middle"),
        svg.text(_WIDTH - _RIGHT, _HEIGHT - 12, str(layers - 1), anchor="middle"),
    ]
    for index, (name, points) in enumerate(sorted(lines.items())):
        colour = _COLOURS[index % len(_COLOURS)]
        parts += svg.line([place(*point) for point in sorted(points.items())], colour)
        y = _TOP + 18 * index
        parts.append(svg.rect(_WIDTH - _RIGHT + 15, y - 9, 10, 10, colour))
        parts.append(svg.text(_WIDTH - _RIGHT + 30, y, name, size=12))
    return svg.document(_WIDTH, _HEIGHT, parts)
