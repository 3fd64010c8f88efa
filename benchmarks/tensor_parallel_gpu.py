"""A large decoder on several GPUs: `python -m benchmarks.tensor_parallel_gpu OUT.json`.

Runs InternVL2-76B's language model with random weights, fp8 on two GPUs and bf16 on four (cases
that need more GPUs than there are are left out, and named). Measures a prefill of 4,096 tokens,
decode steps in CUDA graphs at 1 and 32 rows, and the all-reduces alone. The rate of one GPU is
computed: the fraction of the peak that InternVL2-8B reaches on one, measured in the same run.

`--device cpu --shape miniature --cases fp32:2` tries the same path without a GPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from vlmc.artifact.manifest import RuntimeRules
from vlmc.bench.engines import BATCH, EagerEngine
from vlmc.bench.memory import free_memory
from vlmc.bench.peak import PeakDtype, Peaks
from vlmc.bench.synthetic.shapes import SHAPES
from vlmc.checkpoint.config import LanguageConfig
from vlmc.distributed.followers import Followers
from vlmc.distributed.group import Group
from vlmc.models.flops import RowWork, language_flops
from vlmc.models.language.decoder import Decoder
from vlmc.models.language.packed_batch import Row, pack
from vlmc.models.language.paged_cache import pages_for
from vlmc.models.language.random_weights import LanguagePrecision, random_decoder
from vlmc.progress.channel import notes_on_stderr
from vlmc.runtime.engines.engine import VisionEngine
from vlmc.runtime.follower import FollowedModel, follow
from vlmc.runtime.memory_plan import cache_tokens
from vlmc.runtime.scheduler.lead import Lead
from vlmc.runtime.scheduler.service import make_runner
from vlmc.runtime.scheduler.step_runner import StepRunner
from vlmc.runtime.team import start_team

MODULE = "benchmarks.tensor_parallel_gpu"
ONE_GPU_SHAPE = "internvl2-8b"
ROWS, CONTEXT = (1, 32), 600
# A KV cache of eight times so many tokens holds all rows that decode.
RULES = RuntimeRules(max_batch_tokens=8192)
PEAKS: dict[str, PeakDtype] = {"fp8": "float8", "bf16": "bfloat16", "fp32": "float32"}
ALL_REDUCE = 100  # the kind of a message beside those of the runtime
_REDUCED = 20
Report = dict[str, Any]


class Bench:
    """One decoder ready to run, alone or as rank 0 of a group."""

    def __init__(self, decoder: Decoder, followers: Followers | None = None) -> None:
        self.decoder, self.followers = decoder, followers
        self.device = decoder.embed_tokens.weight.device
        self.runner: StepRunner = make_runner(
            decoder, RULES, cache_tokens(decoder, RULES.max_batch_tokens), Lead(followers)
        )

    def prefill(self, tokens: int) -> Tensor:
        """Logits after a prompt."""
        rows = [Row(0, tokens, tokens, list(range(pages_for(tokens))))]
        self.runner.lead.step(rows, [0])
        batch = pack(rows, self.device)
        ids = torch.arange(tokens, device=self.device) % self.decoder.config.vocab_size
        states = self.runner.packed.forward(self.decoder.embed_tokens(ids), batch)
        return self.runner.packed.logits(states)

    def decode(self, count: int) -> Tensor:
        """Logits of a step of `count` rows; in a graph where there are graphs."""
        pages = pages_for(CONTEXT + 1)
        rows = [
            Row(CONTEXT, 1, CONTEXT + 1, list(range(index * pages, (index + 1) * pages)))
            for index in range(count)
        ]
        graphs = self.runner.graphs
        if graphs is not None:
            self.runner.lead.replay(rows)
            return graphs.replay(graphs.fill(rows, [0] * count))
        self.runner.lead.step(rows, list(range(count)))
        batch = pack(rows, self.device)
        ids = torch.zeros(count, dtype=torch.int64, device=self.device)
        states = self.runner.packed.forward(self.decoder.embed_tokens(ids), batch)
        return self.runner.packed.logits(states)

    def all_reduce_seconds(self, rows: int) -> float:
        """Time of one all-reduce of the states of `rows` tokens."""
        if self.followers is None:
            return 0.0
        self.followers.send(ALL_REDUCE, np.array([rows], np.int32).tobytes())
        return time_all_reduce(self.decoder, rows)


def time_all_reduce(decoder: Decoder, rows: int) -> float:
    """Seconds of one all-reduce, as the mean of many: in a CUDA graph on a GPU."""
    weight = decoder.embed_tokens.weight
    states = weight.new_zeros(rows, weight.shape[1])

    def many() -> None:
        for _ in range(_REDUCED):
            decoder.group.all_reduce(states)

    many()
    if not weight.is_cuda:
        return seconds(many, weight.device) / _REDUCED
    torch.cuda.synchronize(weight.device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        many()
    graph.replay()
    found = median_seconds(graph.replay, weight.device, 5) / _REDUCED
    graph.reset()
    return found


class FollowedBench(FollowedModel):
    """A follower that also joins in the all-reduces alone."""

    def run(self, kind: int, payload: bytes) -> None:
        """As `FollowedModel.run`."""
        if kind == ALL_REDUCE:
            (rows,) = np.frombuffer(payload, np.int32).tolist()
            time_all_reduce(self.decoder, rows)
        else:
            FollowedModel.run(self, kind, payload)


def open_random(
    settings: Mapping[str, Any], device: torch.device, group: Group
) -> tuple[Decoder, VisionEngine]:
    """A follower's shard of a random decoder, and an engine that nothing uses."""
    config = SHAPES[settings["shape"]].language
    decoder = random_decoder(config, settings["precision"], device, group)
    return decoder, EagerEngine(lambda tiles: tiles, "fp32", device, BATCH)


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Time from call to result."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begin = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


def median_seconds(run: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median time after a warm-up."""
    run()
    return statistics.median(seconds(run, device) for _ in range(repeats))


def measure(bench: Bench, config: LanguageConfig, tokens: int, repeats: int) -> Report:
    """Prefill and decode of one decoder; `config` has the sizes of the whole."""
    device, layers, hidden = bench.device, config.layers, config.hidden_size
    flops = language_flops(config, [RowWork(0, tokens, False, True)])
    prefill = median_seconds(lambda: bench.prefill(tokens), device, repeats)
    finite = bool(bench.prefill(tokens).isfinite().all())
    found: Report = {
        "tokens": tokens,
        "prefill_ms": 1e3 * prefill,
        "prefill_tflops": flops / prefill / 1e12,
        "logits_are_finite": finite,
        "decode_ms": {
            rows: 1e3 * median_seconds(lambda rows=rows: bench.decode(rows), device, 3 * repeats)
            for rows in ROWS
        },
        "in_graphs": bench.runner.graphs is not None,
    }
    count = bench.decoder.group.shard.count
    if count > 1:
        element = bench.decoder.embed_tokens.weight.element_size()
        found["all_reduce"] = [
            _all_reduce_report(
                bench.all_reduce_seconds(rows), rows * hidden * element, count, layers, whole
            )
            for rows, whole in [
                (tokens, prefill),
                *((rows, found["decode_ms"][rows] / 1e3) for rows in ROWS),
            ]
        ]
        found["announce_us"] = 1e6 * _announce_seconds(bench)
    return found


def _all_reduce_report(one: float, size: int, count: int, layers: int, whole: float) -> Report:
    """`one` all-reduce of `size` bytes, two of which each layer of a step of `whole` seconds has.

    The bus bandwidth is NCCL's: 2 (N - 1) / N times the bytes over the time.
    """
    return {
        "bytes": size,
        "us": 1e6 * one,
        "bus_gb_per_s": 2 * (count - 1) / count * size / one / 1e9,
        "share_of_step": 2 * layers * one / whole,
    }


def _announce_seconds(bench: Bench) -> float:
    """Host time to send the longest usual message: a decode step of many rows."""
    times = []
    for _ in range(20):
        rows = [Row(CONTEXT, 1, CONTEXT + 1, list(range(pages_for(CONTEXT + 1))))] * max(ROWS)
        begin = time.perf_counter()
        bench.runner.lead.step(rows, [0])
        times.append(time.perf_counter() - begin)
        batch = pack(rows, bench.device)
        ids = torch.zeros(len(rows), dtype=torch.int64, device=bench.device)
        states = bench.runner.packed.forward(bench.decoder.embed_tokens(ids), batch)
        bench.runner.packed.logits(states[:1])
    return statistics.median(times)


def one_device(
    shape: str, precision: str, device: torch.device, tokens: int, repeats: int, peak: float
) -> Report:
    """A decoder on one device, whose fraction of the peak stands for that of larger ones."""
    config = SHAPES[shape].language
    bench = Bench(random_decoder(config, cast(LanguagePrecision, precision), device))
    found = measure(bench, config, tokens, repeats)
    return {"shape": shape, **found, "fraction_of_peak": found["prefill_tflops"] / peak}


def several_devices(
    shape: str, precision: str, count: int, device: torch.device, tokens: int, repeats: int
) -> Report:
    """A decoder on `count` devices."""
    begin = time.perf_counter()
    config = SHAPES[shape].language
    settings = {"shape": shape, "precision": precision, "runtime": asdict(RULES)}
    with start_team(MODULE, settings, device, count) as team:
        decoder = random_decoder(config, cast(LanguagePrecision, precision), device, team.group)
        team.wait()
        loaded = time.perf_counter()
        bench = Bench(decoder, team.followers)
        ready = time.perf_counter()
        found = measure(bench, config, tokens, repeats)
        memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
        bench.runner.close()
    return {
        "shape": shape,
        **found,
        "start_and_load_s": loaded - begin,
        "kernels_and_graphs_s": ready - loaded,
        "peak_memory_bytes_of_rank_0": memory,
    }


def run_case(
    shape: str, precision: str, count: int, device: torch.device, tokens: int, repeats: int
) -> Report:
    """One precision on so many devices, against one device by its fraction of the peak."""
    peak = Peaks(device).of(PEAKS[precision])
    small = ONE_GPU_SHAPE if device.type == "cuda" else shape
    one = one_device(small, precision, device, tokens, repeats, peak)
    free_memory(device)
    found = several_devices(shape, precision, count, device, tokens, repeats)
    free_memory(device)
    one_tflops = one["fraction_of_peak"] * peak
    return {
        "precision": precision,
        "devices": count,
        "peak_tflops_of_one": peak,
        "one_device": one,
        "several": found,
        "fraction_of_peak": found["prefill_tflops"] / (count * peak),
        "prefill_ratio_to_one": found["prefill_tflops"] / one_tflops,
    }


@torch.inference_mode()
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the cases that this machine has the devices for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--shape", default="internvl2-76b")
    parser.add_argument("--cases", default="fp8:2,bf16:4", help="precision:devices, with commas")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cuda:0")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    there = torch.cuda.device_count() if device.type == "cuda" else 64
    cases: list[Report] = []
    left_out: list[str] = []
    report: Report = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "nccl": torch.cuda.nccl.version() if device.type == "cuda" else None,
        "cases": cases,
        "left_out": left_out,
    }
    for case in options.cases.split(","):
        precision, _, number = case.partition(":")
        if int(number) > there:
            left_out.append(f"{case}: {there} devices are there")
            continue
        with notes_on_stderr():
            found = run_case(
                options.shape, precision, int(number), device, options.tokens, options.repeats
            )
        cases.append(found)
        print(json.dumps(found, indent=1), flush=True)
        # After every case, so that a later one that fails costs nothing.
        options.output.write_text(json.dumps(report, indent=1) + "\n")
    options.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].isdigit():
        follow(open_random, FollowedBench)
    main()
