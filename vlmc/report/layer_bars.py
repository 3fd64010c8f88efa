"""A picture of a tower's linears: each one's precision as a colour, its loss as a bar (SVG)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

_COLOURS = {
    "int8": "#2a7f62",
    "fp8": "#3f6fb5",
    "fp16": "#c9a227",
    "bf16": "#c9a227",
    "fp32": "#b5483f",
}
_ROW, _LEFT, _BAR, _TOP, _BOTTOM = 13, 150, 420, 74, 30
_COLUMN = _LEFT + _BAR + 130
# Losses differ by orders of magnitude, so bars are logarithmic over these powers of ten.
_LOW, _HIGH = -8, 0
_ROWS = 50


def draw_layers(title: str, layers: Sequence[Mapping[str, Any]]) -> str:
    """An SVG document of `layers`, each with `name`, `precision`, and either `loss` (1 - cosine
    with the layer alone in 8 bits) or only `largest_output`, in columns of 50."""
    columns = [layers[start : start + _ROWS] for start in range(0, len(layers), _ROWS)]
    width = _COLUMN * len(columns)
    height = _TOP + _ROW * max(map(len, columns)) + _BOTTOM
    losses = any("loss" in layer for layer in layers)
    what = (
        "bar: 1 - cosine of the worst tile with this layer alone in 8 bits, 1e-8 to 1"
        if losses
        else "bar: largest output, 1e-3 to 65504, where fp16 ends"
    )
    used = [name for name in _COLOURS if any(layer["precision"] == name for layer in layers)]
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="10">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="22" font-size="15">{escape(title)}</text>',
        f'<text x="12" y="40" fill="#555555">{escape(what)}</text>',
    ]
    for place, name in enumerate(used):
        count = sum(layer["precision"] == name for layer in layers)
        x = 12 + 130 * place
        lines.append(f'<rect x="{x}" y="50" width="10" height="10" fill="{_COLOURS[name]}"/>')
        lines.append(f'<text x="{x + 15}" y="59">{name}: {count} linears</text>')
    for place, column in enumerate(columns):
        lines += _column(column, place * _COLUMN, losses)
    return "\n".join([*lines, "</svg>", ""])


def _column(layers: Sequence[Mapping[str, Any]], x: int, losses: bool) -> Iterator[str]:
    for index, layer in enumerate(layers):
        y = _TOP + _ROW * index
        name = layer["name"].removeprefix("vision_model.encoder.")
        value = layer["loss"] if losses else layer["largest_output"]
        length = _BAR * _share(value, losses)
        colour = _COLOURS[layer["precision"]]
        yield f'<text x="{x + _LEFT - 8}" y="{y + 9}" text-anchor="end">{escape(name)}</text>'
        yield (
            f'<rect x="{x + _LEFT}" y="{y + 1}" width="{max(length, 1):.1f}" '
            f'height="{_ROW - 3}" fill="{colour}"/>'
        )
        text = f"{value:.1e} {layer['precision']}"
        yield f'<text x="{x + _LEFT + max(length, 1) + 6:.1f}" y="{y + 9}">{text}</text>'


def _share(value: float, losses: bool) -> float:
    """Where a value lies on the bar's logarithmic scale, 0 to 1."""
    low, high = (_LOW, _HIGH) if losses else (-3.0, math.log10(65504))
    power = math.log10(max(value, 10.0**low))
    return min(1.0, (power - low) / (high - low))
