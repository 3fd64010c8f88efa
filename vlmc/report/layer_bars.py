"""An SVG bar chart of a tower's linears: loss as length, precision as colour."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vlmc.report import svg

_COLOURS = {
    "int8": svg.GREEN,
    "fp8": svg.BLUE,
    "fp16": svg.AMBER,
    "bf16": svg.AMBER,
    "fp32": svg.RED,
}
_ROW, _LEFT, _BAR, _TOP, _BOTTOM = 13, 150, 420, 74, 30
_COLUMN = _LEFT + _BAR + 130
# Bars have a logarithmic scale between these powers of ten.
_LOW, _HIGH = -8, 0
_ROWS = 50


def draw_layers(title: str, layers: Sequence[Mapping[str, Any]]) -> str:
    """Draw an SVG document with columns of 50 layers.

    Each layer has `name`, `precision` and `largest_output`, and may have `loss`: 1 - cosine with
    this layer alone in 8 bits.
    """
    columns = [layers[start : start + _ROWS] for start in range(0, len(layers), _ROWS)]
    losses = any("loss" in layer for layer in layers)
    caption = (
        "bar: 1 - cosine of the worst tile with this layer alone in 8 bits, 1e-8 to 1"
        if losses
        else "bar: largest output, 1e-3 to 65504, where fp16 ends"
    )
    parts = [svg.text(12, 22, title, size=15), svg.text(12, 40, caption, dim=True)]
    used = [name for name in _COLOURS if any(layer["precision"] == name for layer in layers)]
    for place, name in enumerate(used):
        count = sum(layer["precision"] == name for layer in layers)
        x = 12 + 130 * place
        parts.append(svg.rect(x, 50, 10, 10, _COLOURS[name]))
        parts.append(svg.text(x + 15, 59, f"{name}: {count} linears"))
    for place, column in enumerate(columns):
        parts += _column(column, place * _COLUMN, losses)
    height = _TOP + _ROW * max(map(len, columns)) + _BOTTOM
    return svg.document(_COLUMN * len(columns), height, parts)


def _column(layers: Sequence[Mapping[str, Any]], x: int, losses: bool) -> Iterator[str]:
    for index, layer in enumerate(layers):
        y = _TOP + _ROW * index
        name = layer["name"].removeprefix("vision_model.encoder.")
        value = layer["loss"] if losses else layer["largest_output"]
        length = max(1.0, _BAR * _share(value, losses))
        colour = _COLOURS[layer["precision"]]
        yield svg.text(x + _LEFT - 8, y + 9, name, anchor="end")
        yield svg.rect(x + _LEFT, y + 1, length, _ROW - 3, colour)
        yield svg.text(x + _LEFT + length + 6, y + 9, f"{value:.1e} {layer['precision']}")


def _share(value: float, losses: bool) -> float:
    """The position of a value on the logarithmic scale, 0 to 1."""
    low, high = (_LOW, _HIGH) if losses else (-3.0, math.log10(65504))
    power = math.log10(max(value, 10.0**low))
    return min(1.0, (power - low) / (high - low))
