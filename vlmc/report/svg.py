"""The few SVG elements that pictures of reports are made of, readable on light and dark pages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from vlmc.report.escape import escape, quote

Anchor = Literal["start", "middle", "end"]

# Colours of data are given by the picture and are seen on both backgrounds.
BLUE, GREEN, AMBER = "#4a7fcb", "#2a9172", "#b8901c"
RED, VIOLET, GREY = "#c25a50", "#9b78c4", "#8a929a"
_STYLE = """<style>
.page { fill: #ffffff } text { fill: #1f2328; font: 10px sans-serif } .dim { fill: #59636e }
@media (prefers-color-scheme: dark) {
  .page { fill: #0d1117 } text { fill: #e6edf3 } .dim { fill: #9198a1 }
}
</style>"""


def document(width: int, height: int, parts: Iterable[str]) -> str:
    """A whole picture, sizes in pixels."""
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">'
    )
    page = '<rect class="page" width="100%" height="100%"/>'
    return "\n".join([opening, _STYLE, page, *parts, "</svg>", ""])


def text(
    x: float,
    y: float,
    content: str,
    *,
    size: int | None = None,
    anchor: Anchor = "start",
    dim: bool = False,
) -> str:
    """A line of text whose baseline begins, or as `anchor` says, at a point."""
    given = {
        "x": _number(x),
        "y": _number(y),
        "text-anchor": None if anchor == "start" else anchor,
        "class": "dim" if dim else None,
        # An attribute would lose against the style sheet.
        "style": None if size is None else f"font-size: {size}px",
    }
    return f"<text{_attributes(given)}>{escape(content)}</text>"


def rect(x: float, y: float, width: float, height: float, colour: str) -> str:
    """A filled rectangle."""
    numbers = {"x": x, "y": y, "width": width, "height": height}
    given = {name: _number(value) for name, value in numbers.items()} | {"fill": colour}
    return f"<rect{_attributes(given)}/>"


def line(points: Sequence[tuple[float, float]], colour: str) -> list[str]:
    """A line through points, each marked."""
    path = " ".join(f"{_number(x)},{_number(y)}" for x, y in points)
    given = {"points": path, "fill": "none", "stroke": colour, "stroke-width": "2"}
    marks = [
        f"<circle{_attributes({'cx': _number(x), 'cy': _number(y), 'r': '3', 'fill': colour})}/>"
        for x, y in points
    ]
    return [f"<polyline{_attributes(given)}/>", *marks]


def _attributes(given: Mapping[str, str | None]) -> str:
    return "".join(f" {name}={quote(value)}" for name, value in given.items() if value is not None)


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
