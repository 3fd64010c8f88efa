"""Write the calibration report: a JSON file and an SVG chart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlmc.compile.calibration.dataset import CalibrationSet
from vlmc.compile.calibration.ranges import Calibration
from vlmc.files.strict_json import write_json
from vlmc.machine.support import DTYPE_NAMES
from vlmc.report.layer_bars import draw_layers

_REPORT = "report"
_WORST = 5


def write_report(
    calibration: Calibration,
    precision: str,
    dtype: str,
    samples: CalibrationSet | None,
    folder: Path,
) -> None:
    """Write `report/vision-ranges.json` below `folder`, and `vision-layers.svg` beside it."""
    report = folder / _REPORT
    report.mkdir()
    layers = _layers(calibration, precision, dtype)
    ranges = calibration.ranges
    worst = sorted(calibration.losses, key=lambda name: -calibration.losses[name])[:_WORST]
    values = {
        "precision": precision,
        "between": dtype,  # dtype of operations between 8-bit layers
        "samples": 0 if samples is None else len(samples.samples),
        "samples_sha256": None if samples is None else samples.digest,
        "skipped": [] if samples is None else list(samples.skipped),
        "tiles": calibration.tiles,
        "device": calibration.device,
        "worst_cosine": calibration.worst_cosine,
        "worst_layers": worst,
        "keep_16bit": list(ranges.keep_16bit),
        "keep_fp32": list(ranges.keep_fp32),
        "residual": list(ranges.residual),
        "layers": layers,
    }
    write_json(report / "vision-ranges.json", values)
    title = f"Vision tower in {precision}"
    (report / "vision-layers.svg").write_text(draw_layers(title, layers), encoding="utf-8")


def _layers(calibration: Calibration, precision: str, dtype: str) -> list[dict[str, Any]]:
    ranges = calibration.ranges
    layers = []
    for name, part in ranges.linears.items():
        clip = calibration.clips.get(name)
        on_grid = clip is not None and name not in ranges.keep_16bit
        dtype_16bit = "float32" if name in ranges.keep_fp32 else dtype
        layer: dict[str, Any] = {
            "name": name,
            "precision": precision if on_grid else _SHORT[dtype_16bit],
            "minimum": part.minimum,
            "maximum": part.maximum,
            "largest_output": part.output,
        }
        if clip is not None:
            layer |= {
                "clip": clip.clip,
                "method": clip.method,
                "migrated": clip.factors is not None,
                "output_error": clip.error,
                "loss": calibration.losses[name],
            }
        layers.append(layer)
    return layers


_SHORT = {long: short for short, long in DTYPE_NAMES.items()}
