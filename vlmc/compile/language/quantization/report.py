"""Write the quantization report: `language-quantization.json` and `.svg`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlmc.compile.language.quantization.settings import Settings
from vlmc.files.strict_json import write_json
from vlmc.report.layer_lines import draw_lines

NAME = "language-quantization"
_WORST = 5


def write_report(
    folder: Path, settings: Settings, measured: Mapping[str, Any], *, stored_bytes: int
) -> None:
    """Write the report of a job.

    Sizes before (in 16 bits) and after include only quantized linears, with scales and zero points.

    Args:
        folder: where to write.
        settings: the quantization settings.
        measured: the report of the quantization process.
        stored_bytes: total size of the weight files.
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
    """The linears with the largest errors, in descending order."""
    return sorted(linears, key=_error, reverse=True)[:_WORST]


def plot(settings: Settings, linears: Sequence[Mapping[str, Any]]) -> str:
    """Plot errors by decoder layer as SVG, with a line for each kind of linear."""
    kinds: dict[str, dict[int, float]] = {}
    for part in linears:
        _, _, layer, kind = part["name"].split(".", 3)
        if part["bits"] != 16:
            kinds.setdefault(kind, {})[int(layer)] = _error(part)
    title = (
        f"{_measure(linears)} by decoder layer: {settings.method}, group {settings.group_size}, "
        f"{'symmetric' if settings.symmetric else 'asymmetric'}"
    )
    return draw_lines(title, kinds, settings.layers)


def _measure(linears: Sequence[Mapping[str, Any]]) -> str:
    if all(part["output_error"] is None for part in linears):
        return "relative error of weights"
    return "relative error of outputs on held-out samples"


def _error(part: Mapping[str, Any]) -> float:
    """The output error, or the weight error without samples."""
    error = part["output_error"]
    return float(part["weight_error"] if error is None else error)


def _packed_bits(part: Mapping[str, Any], settings: Settings) -> int:
    groups = part["outputs"] * (part["inputs"] // settings.group_size)
    scale = 32 if settings.dtype == "float32" else 16
    zero_point = 0 if settings.symmetric else settings.bits
    return int(part["inputs"] * part["outputs"] * settings.bits + groups * (scale + zero_point))
