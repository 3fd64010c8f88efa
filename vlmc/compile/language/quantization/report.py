"""What quantization cost, as `language-quantization.json` and a plot beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from vlmc.compile.language.quantization.settings import Settings
from vlmc.files.strict_json import write_json

NAME = "language-quantization"
_WORST = 5
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 960, 360, 60, 40, 30
_COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#17becf")


def write_report(
    folder: Path, settings: Settings, measured: Mapping[str, Any], *, stored_bytes: int
) -> None:
    """Write the report of a job; `stored_bytes` is the size of the weight files written.

    Sizes count the quantized linears alone, with scales and zero points; before in 16 bits.
    """
    folder.mkdir(exist_ok=True)
    quantized = [part for part in measured["linears"] if part["bits"] != 16]
    weights = sum(part["inputs"] * part["outputs"] for part in quantized)
    packed = sum(_packed_bits(part, settings) for part in quantized)
    shown = ("method", "group_size", "symmetric", "dtype", "bits")
    values = {
        "settings": {key: getattr(settings, key) for key in shown},
        "quantized_weights": weights,
        "bytes_before": 2 * weights,
        "bytes_after": packed // 8,
        "bits_per_weight": packed / weights,
        "stored_bytes": stored_bytes,
        "worst": [part["name"] for part in worst(quantized)],
        **measured,
    }
    write_json(folder / f"{NAME}.json", values)
    (folder / f"{NAME}.svg").write_text(plot(settings, measured["linears"]), encoding="utf-8")


def worst(linears: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The linears that lost most, the worst first."""
    return sorted(linears, key=_error, reverse=True)[:_WORST]


def plot(settings: Settings, linears: Sequence[Mapping[str, Any]]) -> str:
    """Errors by decoder layer as an SVG, a line for each kind of linear."""
    kinds: dict[str, dict[int, float]] = {}
    for part in linears:
        _, _, layer, kind = part["name"].split(".", 3)
        if part["bits"] != 16:
            kinds.setdefault(kind, {})[int(layer)] = _error(part)
    highest = max((value for points in kinds.values() for value in points.values()), default=0.0)
    last = max(settings.layers - 1, 1)

    def place(layer: int, value: float) -> str:
        x = _LEFT + layer / last * (_WIDTH - _LEFT - 180)
        y = _HEIGHT - _BOTTOM - value / (highest or 1.0) * (_HEIGHT - _BOTTOM - _TOP)
        return f"{x:.1f},{y:.1f}"

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        _text(
            _LEFT,
            18,
            f"{_measure(linears)} by decoder layer: {settings.method}, group "
            f"{settings.group_size}, {'symmetric' if settings.symmetric else 'asymmetric'}",
        ),
        _text(4, _TOP + 4, f"{highest:.3f}"),
        _text(4, _HEIGHT - _BOTTOM, "0"),
        _text(_LEFT, _HEIGHT - 12, "0"),
        _text(_WIDTH - 190, _HEIGHT - 12, str(settings.layers - 1)),
    ]
    for index, (kind, points) in enumerate(sorted(kinds.items())):
        colour = _COLOURS[index % len(_COLOURS)]
        path = " ".join(place(layer, value) for layer, value in sorted(points.items()))
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        lines += [
            f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>'
            for x, _, y in (point.partition(",") for point in path.split())
        ]
        lines.append(_text(_WIDTH - 165, _TOP + 18 * index, kind, colour))
    return "\n".join([*lines, "</svg>", ""])


def _text(x: int, y: int, text: str, colour: str = "black") -> str:
    return f'<text x="{x}" y="{y}" fill="{colour}">{escape(text)}</text>'


def _measure(linears: Sequence[Mapping[str, Any]]) -> str:
    if all(part["output_error"] is None for part in linears):
        return "relative error of weights"
    return "relative error of outputs on held-out samples"


def _error(part: Mapping[str, Any]) -> float:
    """Of the outputs where samples told it, else of the weights."""
    error = part["output_error"]
    return float(part["weight_error"] if error is None else error)


def _packed_bits(part: Mapping[str, Any], settings: Settings) -> int:
    groups = part["outputs"] * (part["inputs"] // settings.group_size)
    scale = 32 if settings.dtype == "float32" else 16
    zero_point = 0 if settings.symmetric else settings.bits
    return int(part["inputs"] * part["outputs"] * settings.bits + groups * (scale + zero_point))
