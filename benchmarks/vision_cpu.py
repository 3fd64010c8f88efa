"""The vision tower in int8 on the CPU: `python -m benchmarks.vision_cpu`.

Uses random weights of InternViT-300M's shape with projector, and a build's typed export, Q/DQ nodes
and ONNX Runtime engine, on all cores available to this process.

Alternates runs of int8 and fp32, and prints the median ratio as JSON lines; it should be at least
1.3. `--around float16` measures the graph that artifacts with GPU engines contain.
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

    from vlmc.bench.synthetic.shapes import SHAPES
    from vlmc.bench.synthetic.tower import minmax_ranges, random_tiles, random_tower
    from vlmc.compile.vision import write_graph
    from vlmc.models.cosine import tile_cosines
    from vlmc.models.flops import tower_flops
    from vlmc.runtime.engines.onnxruntime_engine import OnnxRuntimeEngine

    cpu = torch.device("cpu")
    shape = SHAPES["internvl2-8b"]
    tower = random_tower(shape.tower, cpu)
    ranges = minmax_ranges(tower, random_tiles(2, cpu, seed=7))
    write_graph(tower, folder / "fp32.onnx", "fp32", "float32", None)
    write_graph(tower, folder / "int8.onnx", "int8", around, ranges)
    del tower
    fp32 = OnnxRuntimeEngine(folder / "fp32.onnx", "fp32")
    int8 = OnnxRuntimeEngine(folder / "int8.onnx", "int8")
    gflop = tower_flops(shape.vision, shape.vision.layers, shape.language.hidden_size) / 1e9
    for count in BATCHES:
        tiles = random_tiles(count, cpu)
        expected, found = fp32.infer(tiles), int8.infer(tiles)  # the warm-up too
        cosines = tile_cosines(found, expected)
        taken = []
        for _ in range(pairs):
            start = time.perf_counter()
            fp32.infer(tiles)
            middle = time.perf_counter()
            int8.infer(tiles)
            taken.append((middle - start, time.perf_counter() - middle))
        ratios = sorted(one / other for one, other in taken)
        line = {
            "around": around,
            "tiles": count,
            "fp32_seconds_a_tile": round(median(one for one, _ in taken) / count, 2),
            "int8_seconds_a_tile": round(median(other for _, other in taken) / count, 2),
            "ratio": round(median(ratios), 2),
            "ratios": [round(ratio, 2) for ratio in ratios],
            "gflop_a_tile": round(gflop),
            "worst_cosine": round(float(cosines.min()), 5),
            "load": round(os.getloadavg()[0], 1),
        }
        print(json.dumps(line), flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--around", choices=["float32", "float16"], default="float32")
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure_speed(Path(folder), options.around, options.pairs)


if __name__ == "__main__":
    main()
