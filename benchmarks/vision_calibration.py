"""Time and memory of calibrating the vision tower: `python -m benchmarks.vision_calibration`.

Runs the step vision.ranges for int8 with `--tiles` N tiles, on random weights of InternViT-300M's
shape with projector. Memory beyond the tower must stay below 4 GB for any number of tiles. The
tower runs about N + 270 times; use `--layers` for a smaller one. Prints a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from vlmc.bench.synthetic.shapes import VIT_300M
from vlmc.bench.synthetic.tower import random_tiles, random_tower
from vlmc.compile.calibration.ranges import calibrate
from vlmc.compile.calibration.tiles import CalibrationTiles
from vlmc.image.tiles import TileRule
from vlmc.machine.memory import MemoryPeak
from vlmc.models.vision.tower_file import TowerFileConfig

HIDDEN = 4096  # of the language model that the tower's features are for


def measure(count: int, layers: int, device: str) -> dict[str, Any]:
    """Calibrate in this process, and measure time and memory."""
    cpu = torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        images = [Path(folder) / f"{index:04}.png" for index in range(count)]
        for index, image in enumerate(images):
            Image.fromarray(random_tiles(1, cpu, seed=index)[0].numpy()).save(image)
        tiles = CalibrationTiles(
            images, TileRule("single"), resampler="opencv", exif="ignore", seed=0
        )
        config = TowerFileConfig(replace(VIT_300M, layers=layers), -1, "v2", HIDDEN)
        tower = random_tower(config, torch.device(device))
        weights = torch.cuda.memory_allocated() if device == "cuda" else 0
        # The peak counts from here, and includes the tower's weights.
        peak = MemoryPeak()
        before, start = peak.read(), time.perf_counter()
        calibration = calibrate(tower, "int8", tiles, min_cosine=0.99, seed=0)
        after = peak.read()
    on_device = torch.cuda.max_memory_allocated() - weights if device == "cuda" else None
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "tiles": calibration.tiles,
        "layers": layers,
        "held_before_bytes": before,
        "peak_beyond_bytes": None if before is None or after is None else after - before,
        "device_peak_beyond_bytes": on_device,
        "seconds": round(time.perf_counter() - start, 1),
        "worst_cosine": calibration.worst_cosine,
        "keep_16bit": len(calibration.ranges.keep_16bit),
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=128)
    parser.add_argument("--layers", type=int, default=24)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=["cpu", "cuda"], default=device)
    options = parser.parse_args()
    print(json.dumps(measure(options.tiles, options.layers, options.device)))


if __name__ == "__main__":
    main()
