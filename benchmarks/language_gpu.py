"""Speed of 4-bit and fp8 linears on a GPU: `python -m benchmarks.language_gpu OUT.json`.

Runs InternVL2-8B's language model with random weights in bf16, W4A16 and fp8, in one process.
Decode steps run as one CUDA graph on a static cache; prefills have 4,096 tokens. Everything between
the linears is the same for all variants, and compiled. Ratios compare medians of alternating runs.
Prints results as they come, and writes them as JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.language_passes import (
    DEVICE,
    DTYPE,
    MODEL,
    compiled_prefill,
    dense_layer,
    fp8_layer,
    fp8_scaled_after_layer,
    step,
)
from vlmc.checkpoint.config import LanguageConfig
from vlmc.checkpoint.quantization import Quantization
from vlmc.models.language.decoder import Decoder
from vlmc.models.language.load import load_decoder
from vlmc.models.language.random_weights import FP8, random_tensors, w4a16
from vlmc.models.linears import w4a16 as w4a16_module
from vlmc.models.linears.autotune import milliseconds
from vlmc.models.linears.kernel import Kernel
from vlmc.models.linears.w4a16 import W4A16Linear, choose_kernel, humming_version
from vlmc.progress.channel import notes_on_stderr

CONTEXT, PROMPT = 600, 4096
Report = dict[str, Any]


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--layers", type=int, default=MODEL.layers)
    parser.add_argument(
        "--products",
        default="128a,128s,32a,32s",
        help="group sizes and symmetry for timing single products",
    )
    arguments = parser.parse_args()
    config = replace(MODEL, layers=arguments.layers)
    torch.manual_seed(0)
    report: Report = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "humming": humming_version(),
        "layers": config.layers,
        "context": CONTEXT,
        "prompt": PROMPT,
    }
    models: dict[str, Decoder] = {}
    for name, quantization in (("bf16", None), ("w4a16", w4a16(128, False)), ("fp8", FP8)):
        report[name] = {}
        models[name] = load(config, quantization, report[name])
    with without_humming():
        report["w4a16 torch"] = {}
        models["w4a16 torch"] = load(config, w4a16(128, False), report["w4a16 torch"])
    for name in models:
        print(name, json.dumps(report[name]), flush=True)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        for rows in (1, 8, 32):
            runs = {name: graph(step(model, rows, 1, CONTEXT)) for name, model in models.items()}
            record(report, f"decode, {rows} row{'s' * (rows > 1)}", runs, 15, 10)
    with sdpa_kernel([SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION]):
        runs = {name: graph(step(model, 1, PROMPT, PROMPT)) for name, model in models.items()}
        record(report, "prefill", runs, 9, 1)
        compiled = {
            "bf16": dense_layer,
            "fp8": fp8_layer,
            "fp8 scaled after": fp8_scaled_after_layer,
        }
        runs = {
            name: graph(compiled_prefill(models[name.split()[0]], PROMPT, layer))
            for name, layer in compiled.items()
        }
        record(report, "prefill, layers compiled", runs, 9, 1)
    layer: Any = models["w4a16"].layers[0]
    linears = {
        "qkv 128a": layer.self_attn.qkv_proj,
        "o 128a": layer.self_attn.o_proj,
        "down 128a": layer.mlp.down_proj,
    }
    for name in filter(None, arguments.products.split(",")):
        linears[f"gate_up {name}"] = single(w4a16(int(name[:-1]), name[-1] == "s"))
    with without_humming():
        linears["gate_up 128a torch"] = single(w4a16(128, False))
    report["products"] = {}
    for name, linear in linears.items():
        report["products"][name] = products(linear)
        print(name, json.dumps(report["products"][name]), flush=True)
    arguments.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def load(config: LanguageConfig, quantization: Quantization | None, report: Report) -> Decoder:
    """Load the whole model, and record time and memory."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    begin = time.perf_counter()
    with notes_on_stderr():
        decoder = load_decoder(
            config,
            random_tensors(config, quantization, DTYPE, torch.device(DEVICE)),
            dtype=DTYPE,
            device=DEVICE,
            quantization=quantization,
        )
    torch.cuda.synchronize()
    report["load_seconds"] = round(time.perf_counter() - begin, 1)
    report["bytes"] = torch.cuda.memory_allocated() - before
    report["peak_bytes"] = torch.cuda.max_memory_allocated() - before
    return decoder


def graph(run: Callable[[], Tensor]) -> Callable[[], object]:
    """Capture `run` as one CUDA graph, after a warm-up."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(2):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        found = run()
    captured.replay()
    torch.cuda.synchronize()
    if not bool(torch.isfinite(found).all()):
        raise SystemExit("the logits are not finite")
    # Keeps `run` alive, because the graph reads its tensors.
    return lambda: (captured.replay(), run)


def alternate(runs: dict[str, Callable[[], object]], repeats: int, each: int) -> dict[str, float]:
    """Median milliseconds of each, in alternating runs."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            start = torch.cuda.Event(enable_timing=True)
            end = torch.cuda.Event(enable_timing=True)
            start.record()
            for _ in range(each):
                run()
            end.record()
            end.synchronize()
            if repeat:
                times[name].append(start.elapsed_time(end) / each)
    return {name: round(statistics.median(found), 4) for name, found in times.items()}


def record(
    report: Report, name: str, runs: dict[str, Callable[[], object]], repeats: int, each: int
) -> None:
    """Measure, print and record milliseconds and their ratios to bf16."""
    times = alternate(runs, repeats, each)
    ratios = {key: round(value / times["bf16"], 3) for key, value in times.items()}
    report[name] = {"ms": times, "to_bf16": ratios}
    print(name, json.dumps(report[name]), flush=True)


def products(linear: W4A16Linear) -> Report:
    """Milliseconds of one product: cuBLAS in bf16, the 4-bit kernel, and dequantize with cuBLAS."""
    kernel, dense = linear.kernel, linear.kernel.dequantize()
    found: Report = {
        "kernel": kernel.name,
        "dequantized_from_rows": linear.crossover_rows,
        "dequantize_ms": round(milliseconds(kernel.dequantize), 4),
    }
    for count in (1, 8, 32, 64, 128, 256, 512, 1024, 2048, 4096):
        rows = torch.randn(count, kernel.shape[1], device=DEVICE, dtype=DTYPE)
        runs: dict[str, Callable[[], object]] = {
            "bf16": partial(functional.linear, rows, dense),
            "dequantized": partial(dequantized, rows, kernel),
        }
        if count <= kernel.max_rows:
            runs["kernel"] = partial(kernel.multiply, rows)
        found[str(count)] = {name: round(milliseconds(run), 4) for name, run in runs.items()}
    return found


def dequantized(rows: Tensor, kernel: Kernel) -> Tensor:
    return functional.linear(rows, kernel.dequantize())


def single(quantization: Quantization) -> W4A16Linear:
    """The fused gate and up projection of one layer."""
    outputs, inputs = 2 * MODEL.intermediate_size, MODEL.hidden_size
    groups = inputs // (quantization.group_size or inputs)
    scales = torch.rand(outputs, groups, device=DEVICE, dtype=DTYPE)
    zeros = None if quantization.symmetric else words(outputs // 8, groups)
    return W4A16Linear(choose_kernel(words(outputs, inputs // 8), scales, zeros, DTYPE), None)


def words(*shape: int) -> Tensor:
    return torch.randint(-(1 << 31), 1 << 31, shape, device=DEVICE).to(torch.int32)


@contextmanager
def without_humming() -> Iterator[None]:
    """Simulate a machine without humming-kernels, without its warning."""
    found = w4a16_module.humming_version
    w4a16_module.humming_version = lambda: None  # type: ignore[assignment]
    try:
        yield
    finally:
        w4a16_module.humming_version = found


if __name__ == "__main__":
    main()
