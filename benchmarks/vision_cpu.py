"""The vision tower in int8 on the CPU: `python -m benchmarks.vision_cpu`.

InternViT-300M's shape with projector, random weights, through what a build uses: the typed export,
Q/DQ nodes and ONNX Runtime's engine on all cores that this process may use.

`--speed` times int8 beside fp32, one run of each in turn, and gives the median of the ratios of the
pairs, which is to be at least 1.3; `--around float16` is the graph that an artifact with engines
for a GPU bundles. `--calibrate N` calibrates int8 on N tiles in a process of its own, as the step
vision.ranges does, and tells the memory that it takes beyond the tower, which is to stay below
4 GB however many tiles there are. It runs the tower about N + 270 times; `--layers` takes a tower
of fewer, and `--device cuda` runs it where a build would, beside a GPU. Prints JSON lines.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Literal

ROOT = Path(__file__).parent.parent
BATCHES = (1, 4)


def measure_speed(folder: Path, around: Literal["float32", "float16"], pairs: int) -> None:
    """Export both graphs into `folder`, and print a line for each batch."""
    import torch
    from torch.nn.functional import cosine_similarity

    from benchmarks.random_tower import flops, minmax_ranges, random_tiles, random_tower
    from vlmc.compile.vision import write_graph
    from vlmc.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine

    cpu = torch.device("cpu")
    tower = random_tower(cpu)
    ranges = minmax_ranges(tower, random_tiles(2, cpu, seed=7))
    write_graph(tower, folder / "fp32.onnx", "fp32", "float32", None)
    write_graph(tower, folder / "int8.onnx", "int8", around, ranges)
    del tower
    wide = OnnxRuntimeEngine(folder / "fp32.onnx", "fp32")
    narrow = OnnxRuntimeEngine(folder / "int8.onnx", "int8")
    for count in BATCHES:
        tiles = random_tiles(count, cpu)
        expected, found = wide.infer(tiles), narrow.infer(tiles)  # the warm-up too
        cosines = cosine_similarity(found.float().flatten(1), expected.flatten(1))
        taken = []
        for _ in range(pairs):
            start = time.perf_counter()
            wide.infer(tiles)
            middle = time.perf_counter()
            narrow.infer(tiles)
            taken.append((middle - start, time.perf_counter() - middle))
        ratios = sorted(one / other for one, other in taken)
        line = {
            "around": around,
            "tiles": count,
            "fp32_seconds_a_tile": round(median(one for one, _ in taken) / count, 2),
            "int8_seconds_a_tile": round(median(other for _, other in taken) / count, 2),
            "ratio": round(median(ratios), 2),
            "ratios": [round(ratio, 2) for ratio in ratios],
            "gflop_a_tile": round(flops(True) / 1e9),
            "worst_cosine": round(float(cosines.min()), 5),
            "load": round(os.getloadavg()[0], 1),
        }
        print(json.dumps(line), flush=True)


def calibrate(count: int, layers: int, device: str) -> dict[str, Any]:
    """Calibrate in this process; the memory that it took."""
    import torch
    from PIL import Image

    from benchmarks.random_tower import random_tiles, random_tower
    from vlmc.compile.calibration_tiles import CalibrationTiles
    from vlmc.compile.measure import measure_ranges
    from vlmc.image.tiles import TileRule
    from vlmc.machine.memory import MemoryPeak

    cpu = torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        images = [Path(folder) / f"{index:04}.png" for index in range(count)]
        for index, image in enumerate(images):
            Image.fromarray(random_tiles(1, cpu, seed=index)[0].numpy()).save(image)
        tiles = CalibrationTiles(
            images, TileRule("single"), resampler="opencv", exif="ignore", seed=0
        )
        tower = random_tower(torch.device(device), layers)
        weights = torch.cuda.memory_allocated() if device == "cuda" else 0
        # From here on: what was held meanwhile does not count, the tower's weights do.
        peak = MemoryPeak()
        before, start = peak.read(), time.perf_counter()
        measured = measure_ranges(tower, "int8", tiles, min_cosine=0.99, seed=0)
        after = peak.read()
    on_device = torch.cuda.max_memory_allocated() - weights if device == "cuda" else None
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "tiles": measured.tiles,
        "layers": layers,
        "held_before_bytes": before,
        "peak_beyond_bytes": None if before is None or after is None else after - before,
        "device_peak_beyond_bytes": on_device,
        "seconds": round(time.perf_counter() - start, 1),
        "worst_cosine": measured.worst_cosine,
        "keep_16bit": len(measured.ranges.keep_16bit),
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    """Measure what is asked for; everything by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--around", choices=["float32", "float16"], default="float32")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--calibrate", type=int, action="append", metavar="N", default=[])
    parser.add_argument("--layers", type=int, default=24, help="of the tower that is calibrated")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--in-process", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_process is not None:
        print(json.dumps(calibrate(options.in_process, options.layers, options.device)))
        return
    nothing = not options.speed and not options.calibrate
    if options.speed or nothing:
        with tempfile.TemporaryDirectory() as folder:
            measure_speed(Path(folder), options.around, options.pairs)
    for count in options.calibrate or ([128] if nothing else []):
        command = [sys.executable, "-m", "benchmarks.vision_cpu", "--in-process", str(count)]
        tower = ["--layers", str(options.layers), "--device", options.device]
        subprocess.run([*command, *tower], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
