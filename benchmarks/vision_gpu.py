"""The vision tower on a GPU: `python -m benchmarks.vision_gpu --json results.json`.

Runs a random tower of InternViT-300M's shape with a projector to 4096 on uint8 tiles: with eager
and compiled torch, and with the inductor engine in each precision. Prints median milliseconds per
tile from device events, TFLOP/s, and the fraction of the rate of a 16-bit 8192³ matrix product in
the same run. The cosine is that of the worst tile to fp32.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor

from vlmc.artifact.manifest import EngineRecord, Profile
from vlmc.bench.peak import peak_tflops
from vlmc.bench.synthetic.shapes import SHAPES
from vlmc.bench.synthetic.tower import random_precision, random_tiles, random_tower
from vlmc.compile.engines.inductor import compile_tower, memory_of_runs
from vlmc.machine.aoti_environment import aoti_environment_of
from vlmc.models.cosine import tile_cosines
from vlmc.models.flops import tower_flops
from vlmc.models.vision.fuse import fuse
from vlmc.models.vision.tower import VisionTower, normalize_tiles
from vlmc.runtime.engines.inductor_engine import InductorEngine

DEVICE = torch.device("cuda", 0)
SHAPE = SHAPES["internvl2-8b"]
BATCHES = (1, 4, 13, 26, 52)


def milliseconds(run: Callable[[], object], repeats: int) -> float:
    """Median time from device events, after a warm-up. The data exceed the L2 cache."""
    for _ in range(5):
        run()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return sorted(times)[len(times) // 2]


def graph_of(run: Callable[[], object]) -> Callable[[], object]:
    """`run` captured in a CUDA graph."""
    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def flops(projector: bool) -> int:
    """Operations on one tile."""
    vision = SHAPE.vision
    return tower_flops(vision, vision.layers, projector * SHAPE.language.hidden_size)


class Results:
    """Collects the results of one run, and prints them as they come."""

    def __init__(self, repeats: int) -> None:
        self.repeats = repeats
        self.peaks = {
            dtype: peak_tflops(dtype, DEVICE) for dtype in ("float16", "bfloat16", "float8")
        }
        print({name: f"{peak:.0f} TFLOP/s" for name, peak in self.peaks.items()}, flush=True)
        self.rows: list[dict[str, object]] = []

    def add(
        self,
        variant: str,
        tiles: int,
        run: Callable[[], object],
        projector: bool = True,
        **more: object,
    ) -> None:
        """Time `run`, which processes `tiles` tiles."""
        spent = milliseconds(run, self.repeats) / tiles
        rate = flops(projector) / spent / 1e9
        row = {"variant": variant, "tiles": tiles, "projector": projector, "ms_a_tile": spent}
        row |= {"tflops": rate, "of_fp16_peak": rate / self.peaks["float16"], **more}
        self.rows.append(row)
        print(
            f"{variant:24} {tiles:3} tiles {spent:7.3f} ms a tile {rate:6.0f} TFLOP/s "
            f"{row['of_fp16_peak']:6.1%} {more or ''}",
            flush=True,
        )


def measure_torch(results: Results, tower: VisionTower, batches: tuple[int, ...]) -> None:
    """Time the fp16 `VisionTower`, eager and compiled, and eager without the projector."""
    compiled = torch.compile(tower)
    for count in batches:
        tiles = random_tiles(count, DEVICE)
        results.add("eager fp16", count, lambda t=tiles: tower(normalize_tiles(t, torch.float16)))
        results.add(
            "eager fp16",
            count,
            lambda t=tiles: tower.vision_model(normalize_tiles(t, torch.float16)),
            projector=False,
        )
        results.add(
            "compiled fp16", count, lambda t=tiles: compiled(normalize_tiles(t, torch.float16))
        )


def compile_package(package: Path, batches: tuple[int, ...]) -> None:
    """Compile the package of the precision in its name, and write time and memory next to it."""
    tower = random_tower(SHAPE.tower, DEVICE)
    fused = fuse(tower, random_precision(tower, package.stem))
    start = time.perf_counter()
    compile_tower(fused, package, opt_tiles=13)
    seconds = time.perf_counter() - start
    memory = memory_of_runs(package, fused, batches)
    needed = {"compile_s": seconds, "device_memory_bytes": memory}
    package.with_suffix(".json").write_text(json.dumps(needed))


def measure_engine(
    results: Results, tower: VisionTower, package: Path, batches: tuple[int, ...]
) -> None:
    """Load the inductor engine, compare it with fp32, and time it."""
    precision, needs = package.stem, aoti_environment_of(DEVICE)
    tower_precision = random_precision(tower, precision)
    profiles = (Profile(1, 1, 4), Profile(5, 13, max(batches)))
    entry = EngineRecord(
        engine="inductor",
        target=needs.target,
        precision=precision,
        file=package.name,
        profiles=profiles,
        versions=needs.versions(),
        device_memory_bytes=None,
        min_feature_cosine=0.9,
    )
    start = time.perf_counter()
    engine = InductorEngine(package, entry, tower, tower_precision, DEVICE)
    needed = json.loads(package.with_suffix(".json").read_text())
    needed |= {"load_s": time.perf_counter() - start, "package_bytes": package.stat().st_size}
    print(precision, needed, flush=True)
    for count in batches:
        tiles = random_tiles(count, DEVICE)
        with torch.inference_mode():
            expected = [tower(normalize_tiles(part, torch.float32)) for part in tiles.split(1)]
        cosine = float(tile_cosines(engine.infer(tiles), torch.cat(expected)).min())

        def run(tiles: Tensor = tiles) -> Tensor:
            return engine.infer(tiles)

        results.add(f"inductor {precision}", count, run, cosine=cosine, **needed)
        results.add(f"inductor {precision} graph", count, graph_of(run))
    engine.close()


def main() -> None:
    """Measure and print; with `--json`, write the results too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--precisions", nargs="+", default=["fp16", "bf16", "fp8"])
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES))
    parser.add_argument("--packages", type=Path, help="folder to keep and reuse packages")
    parser.add_argument("--compile-only", action="store_true", help="write packages, time nothing")
    options = parser.parse_args()
    batches = tuple(options.batches)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    with tempfile.TemporaryDirectory() as name:
        folder = options.packages or Path(name)
        folder.mkdir(exist_ok=True)
        packages = [folder / f"{precision}.pt2" for precision in options.precisions]
        missing = [package for package in packages if not package.exists()]
        with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as processes:
            list(processes.map(compile_package, missing, [batches] * len(missing)))
        if options.compile_only:
            return
        tower = random_tower(SHAPE.tower, DEVICE)
        results = Results(options.repeats)
        with torch.inference_mode():
            measure_torch(results, random_tower(SHAPE.tower, DEVICE).half(), batches)
        for package in packages:
            measure_engine(results, tower, package, batches)
    if options.json:
        result = {
            "gpu": torch.cuda.get_device_name(DEVICE),
            "versions": aoti_environment_of(DEVICE).versions(),
            "gflop_a_tile": flops(True) / 1e9,
            "peaks_tflops": results.peaks,
            "rows": results.rows,
        }
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
