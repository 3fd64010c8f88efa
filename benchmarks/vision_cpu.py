"""The vision tower in int8 on the CPU: `python -m benchmarks.vision_cpu`.

InternViT-300M's shape with projector, random weights, through what a build uses: the typed export,
Q/DQ nodes and ONNX Runtime's engine on all cores that this process may use.

Times int8 beside fp32, one run of each in turn, and gives the median of the ratios of the
pairs, which is to be at least 1.3; `--around float16` is the graph that an artifact with engines
for a GPU bundles. Prints JSON lines.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Literal

BATCHES = (1, 4)


def measure_speed(folder: Path, around: Literal["float32", "float16"], pairs: int) -> None:
    """Export both graphs into `folder`, and print a line for each batch."""
    import torch

    from benchmarks.random_tower import flops, minmax_ranges, random_tiles, random_tower
    from vlmc.compile.vision import write_graph
    from vlmc.models.cosine import tile_cosines
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
        cosines = tile_cosines(found, expected)
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


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--around", choices=["float32", "float16"], default="float32")
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure_speed(Path(folder), options.around, options.pairs)


if __name__ == "__main__":
    main()
