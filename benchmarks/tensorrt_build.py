"""Time, memory and size of a TensorRT-RTX build: `python -m benchmarks.tensorrt_build`.

Without `--graph`, exports graphs of InternViT-300M's shape with projector in fp16 and int8, with
random weights. Builds each for one target with four profiles, in a separate process; needs no GPU.
Prints JSON. Limits on two cores: `seconds` below 60 and `peak_bytes` below 3 GB for fp16;
`plan_bytes` (the engine's size) of int8 below 60 % of fp16. CPU seconds are printed too, because
they depend less on other load.
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
from typing import Any

from vlmc.machine.support import Precision

ROOT = Path(__file__).parent.parent
MAX_SECONDS, MAX_BYTES = 60, 3e9
INT8_SHARE = 0.6
PRECISIONS: tuple[Precision, ...] = ("fp16", "int8")
PROFILES = ((1, 1, 1), (2, 4, 4), (5, 8, 13), (14, 26, 52))


def export_graph(path: Path, precision: Precision) -> None:
    """Export a graph of InternViT-300M's shape with projector; int8 graphs use fp16 elsewhere."""
    import torch

    from vlmc.bench.synthetic.shapes import SHAPES
    from vlmc.bench.synthetic.tower import minmax_ranges, random_tiles, random_tower
    from vlmc.compile.vision import write_graph

    cpu = torch.device("cpu")
    tower = random_tower(SHAPES["internvl2-8b"].tower, cpu)
    ranges = minmax_ranges(tower, random_tiles(2, cpu)) if precision == "int8" else None
    write_graph(tower, path, precision, "float16", ranges)


def build(graph: Path, target: str) -> dict[str, Any]:
    """Build in this process. Returns time, memory and size."""
    from vlmc.artifact.manifest import Profile
    from vlmc.compile.engines.tensorrt import build_engine
    from vlmc.machine.memory import MemoryPeak

    # Not ru_maxrss, which a child process inherits from its parent.
    peak = MemoryPeak()
    with tempfile.TemporaryDirectory() as folder:
        start, processor = time.perf_counter(), time.process_time()
        build_engine(
            graph,
            Path(folder),
            engine="tensorrt-rtx",
            target=target,
            profiles=[Profile(*sizes) for sizes in PROFILES],
        )
        seconds, processor = time.perf_counter() - start, time.process_time() - processor
        (serialized,) = Path(folder).glob("*.engine")
        (report,) = Path(folder).glob("report/*.json")
        return {
            "target": target,
            "seconds": round(seconds, 1),
            "processor_seconds": round(processor, 1),
            "peak_bytes": peak.read(),
            "graph_bytes": graph.stat().st_size,
            "plan_bytes": serialized.stat().st_size,
            "products": json.loads(report.read_bytes())["products"],
            "load": round(os.getloadavg()[0], 1),
        }


def measure(graph: Path, target: str) -> dict[str, Any]:
    """Run `build` in a separate process, to measure its peak memory."""
    command = [sys.executable, "-m", "benchmarks.tensorrt_build", "--build", str(graph), target]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    values: dict[str, Any] = json.loads(result.stdout)
    return values


def main() -> None:
    """Export or read graphs, build them and print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graph", type=Path, action="append", help="a graph to build; repeatable")
    parser.add_argument("--target", default="sm89")
    parser.add_argument("--build", nargs=2, metavar=("GRAPH", "TARGET"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.build is not None:
        print(json.dumps(build(Path(arguments.build[0]), arguments.build[1])))
        return
    with tempfile.TemporaryDirectory() as folder:
        graphs = arguments.graph
        if graphs is None:
            graphs = [Path(folder) / f"{precision}.onnx" for precision in PRECISIONS]
            for graph, precision in zip(graphs, PRECISIONS, strict=True):
                export_graph(graph, precision)
        for graph in graphs:
            print(json.dumps({"graph": str(graph)} | measure(graph.resolve(), arguments.target)))


if __name__ == "__main__":
    main()
