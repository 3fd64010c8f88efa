"""Time, memory and size of a TensorRT-RTX build: `python -m benchmarks.tensorrt_build`.

Without `--graph` an fp16 graph of InternViT-300M's shape with projector is exported first, with
random weights. It is built for one card with four profiles, in a process of its own; needs no GPU.
Prints JSON; `seconds` is to stay below 60 and `peak_bytes` below 3 GB on two cores. Seconds of
processor time are told beside, which other work on the machine does not lengthen as much.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
MAX_SECONDS, MAX_BYTES = 60, 3e9
PROFILES = ((1, 1, 1), (2, 4, 4), (5, 8, 13), (14, 26, 52))


def export_graph(path: Path) -> None:
    """An fp16 graph of 24 blocks of 1024, random weights of the usual size, to hidden size 4096."""
    import torch
    from torch import Tensor, nn

    from vlmc.checkpoint.source import open_checkpoint
    from vlmc.models.loading import load_tower
    from vlmc.models.vision import VisionTower, normalize_tiles

    with open_checkpoint(ROOT / "recipes" / "quickstart" / "checkpoint") as checkpoint:
        small = checkpoint.config
    vision = replace(
        small.vision, hidden_size=1024, intermediate_size=4096, heads=16, layers=24, qkv_bias=True
    )
    config = replace(small, vision=vision, language=replace(small.language, hidden_size=4096))
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in VisionTower(config).named_parameters()}

    def weights() -> Iterator[tuple[str, Tensor]]:
        for name, shape in shapes.items():
            ones = len(shape) == 1 and name.endswith("weight")
            yield name, torch.ones(shape) if ones else torch.randn(shape) * 0.02

    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower = load_tower(config, weights(), dtype=torch.float16, device="cpu")

        def forward(self, tiles: Tensor) -> Tensor:
            features: Tensor = self.tower(normalize_tiles(tiles, torch.float16))
            return features

    torch.manual_seed(0)
    program = torch.onnx.export(
        Graph().eval(),
        (torch.zeros(2, 448, 448, 3, dtype=torch.uint8),),
        dynamo=True,
        opset_version=20,
        dynamic_shapes={"tiles": {0: torch.export.Dim("tiles", min=1, max=4096)}},
        input_names=["tiles"],
        output_names=["features"],
        verbose=False,
    )
    if program is None:
        raise SystemExit("nothing was exported")
    program.save(str(path))


def build(graph: Path, target: str) -> dict[str, Any]:
    """Build in this process; what it took."""
    from vlmc.artifact.manifest import Profile
    from vlmc.compile.tensorrt import build_plan

    with tempfile.TemporaryDirectory() as folder:
        start, processor = time.perf_counter(), time.process_time()
        build_plan(
            graph,
            Path(folder),
            engine="tensorrt-rtx",
            target=target,
            profiles=[Profile(*sizes) for sizes in PROFILES],
        )
        seconds, processor = time.perf_counter() - start, time.process_time() - processor
        (plan,) = Path(folder).glob("*.engine")
        return {
            "target": target,
            "seconds": round(seconds, 1),
            "processor_seconds": round(processor, 1),
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "graph_bytes": graph.stat().st_size,
            "plan_bytes": plan.stat().st_size,
            "load": round(os.getloadavg()[0], 1),
        }


def measure(graph: Path, target: str) -> dict[str, Any]:
    """As `build`, in a process of its own, whose peak is the build's."""
    command = [sys.executable, "-m", "benchmarks.tensorrt_build", "--build", str(graph), target]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    values: dict[str, Any] = json.loads(result.stdout)
    return values


def main() -> None:
    """Export or take a graph, and print what its build takes."""
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
            graphs = [Path(folder) / "model.onnx"]
            export_graph(graphs[0])
        for graph in graphs:
            print(json.dumps({"graph": str(graph)} | measure(graph.resolve(), arguments.target)))


if __name__ == "__main__":
    main()
