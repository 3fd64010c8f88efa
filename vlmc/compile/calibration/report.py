"""What people read of a tower's ranges: a JSON file and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlmc.compile.calibration.dataset import CalibrationSet
from vlmc.compile.calibration.ranges import Measured
from vlmc.files.strict_json import write_json
from vlmc.machine.support import DTYPE_NAMES
from vlmc.report.layer_bars import draw_layers

_REPORT = "report"
_WORST = 5


def write_report(
    measured: Measured, precision: str, dtype: str, samples: CalibrationSet | None, folder: Path
) -> None:
    """Write `report/vision-ranges.json` below `folder`, and `vision-layers.svg` beside it."""
    report = folder / _REPORT
    report.mkdir()
    layers = _layers(measured, precision, dtype)
    ranges = measured.ranges
    worst = sorted(measured.losses, key=lambda name: -measured.losses[name])[:_WORST]
    values = {
        "precision": precision,
        "between": dtype,  # what is computed in between 8-bit layers
        "samples": 0 if samples is None else len(samples.samples),
        "samples_sha256": None if samples is None else samples.digest,
        "skipped": [] if samples is None else list(samples.skipped),
        "tiles": measured.tiles,
        "device": measured.device,
        "worst_cosine": measured.worst_cosine,
        "worst_layers": worst,
        "keep_16bit": list(ranges.keep_16bit),
        "keep_fp32": list(ranges.keep_fp32),
        "residual": list(ranges.residual),
        "layers": layers,
    }
    write_json(report / "vision-ranges.json", values)
    title = f"Vision tower in {precision}"
    (report / "vision-layers.svg").write_text(draw_layers(title, layers), encoding="utf-8")


def _layers(measured: Measured, precision: str, dtype: str) -> list[dict[str, Any]]:
    ranges = measured.ranges
    layers = []
    for name, part in ranges.linears.items():
        clip = measured.clips.get(name)
        on_grid = clip is not None and name not in ranges.keep_16bit
        wide = "float32" if name in ranges.keep_fp32 else dtype
        layer: dict[str, Any] = {
            "name": name,
            "precision": precision if on_grid else _SHORT[wide],
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
                "loss": measured.losses[name],
            }
        layers.append(layer)
    return layers


_SHORT = {long: short for short, long in DTYPE_NAMES.items()}
