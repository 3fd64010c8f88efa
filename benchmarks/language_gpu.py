"""How quick 4-bit and fp8 linears are on a GPU: `python benchmarks/language_gpu.py OUT.json`.

InternVL2-8B's language model with random weights, in one process: bf16, W4A16 and fp8 side by side,
decode steps through one CUDA graph of the whole step on a static cache, prefills of 4,096 tokens.
Everything between the linears is the same for all, and compiled. Ratios are of medians of runs that
alternate. Prints what it measures as it goes, and writes it all as JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from vlmc.checkpoint.config import LanguageConfig
from vlmc.checkpoint.quantization import Quantization
from vlmc.models.language.decoder import Decoder
from vlmc.models.language.load import load_decoder
from vlmc.models.linears import w4a16 as w4a16_module
from vlmc.models.linears.autotune import milliseconds
from vlmc.models.linears.dequantize import quantize_tokens
from vlmc.models.linears.fp8 import multiply_fp8
from vlmc.models.linears.kernel import Kernel
from vlmc.models.linears.w4a16 import W4A16Linear, choose_kernel, humming_version

DEVICE, DTYPE = "cuda", torch.bfloat16
CONTEXT, PROMPT = 600, 4096
MODEL = LanguageConfig(
    architecture="LlamaForCausalLM",
    hidden_size=4096,
    layers=32,
    heads=32,
    kv_heads=8,
    head_dim=128,
    intermediate_size=14336,
    vocab_size=92553,
    norm_eps=1e-5,
    rope_theta=1e6,
    max_positions=32768,
)
Report = dict[str, Any]


def w4a16(group_size: int, symmetric: bool) -> Quantization:
    return Quantization("w4a16", group_size, symmetric, ("Linear",), ("lm_head",))


FP8 = Quantization("fp8", None, True, ("Linear",), ("lm_head",))


def linears(config: LanguageConfig) -> Iterator[tuple[str, int, int]]:
    """Name, outputs and inputs of every linear in the layers."""
    hidden, inner, head = config.hidden_size, config.intermediate_size, config.head_dim
    for index in range(config.layers):
        layer = f"model.layers.{index}."
        yield f"{layer}self_attn.q_proj", config.heads * head, hidden
        yield f"{layer}self_attn.k_proj", config.kv_heads * head, hidden
        yield f"{layer}self_attn.v_proj", config.kv_heads * head, hidden
        yield f"{layer}self_attn.o_proj", hidden, config.heads * head
        yield f"{layer}mlp.gate_proj", inner, hidden
        yield f"{layer}mlp.up_proj", inner, hidden
        yield f"{layer}mlp.down_proj", hidden, inner


def random_tensors(
    config: LanguageConfig, quantization: Quantization | None
) -> Iterator[tuple[str, Tensor]]:
    """Weights of a realistic scale, made on the GPU."""
    spread = config.hidden_size**-0.5

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, device=DEVICE, dtype=DTYPE) * spread

    yield "model.embed_tokens.weight", normal(config.vocab_size, config.hidden_size)
    yield "lm_head.weight", normal(config.vocab_size, config.hidden_size)
    yield "model.norm.weight", torch.ones(config.hidden_size, device=DEVICE, dtype=DTYPE)
    for index in range(config.layers):
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield (
                f"model.layers.{index}.{norm}.weight",
                torch.ones(config.hidden_size, device=DEVICE, dtype=DTYPE),
            )
    for name, outputs, inputs in linears(config):
        if quantization is None:
            yield f"{name}.weight", normal(outputs, inputs)
        elif quantization.layout == "fp8":
            yield f"{name}.weight", (normal(outputs, inputs) * 64).to(torch.float8_e4m3fn)
            yield f"{name}.weight_scale", torch.full((outputs, 1), 1 / 64, device=DEVICE)
        else:
            groups = inputs // (quantization.group_size or inputs)
            yield f"{name}.weight_packed", words(outputs, inputs // 8)
            yield (
                f"{name}.weight_scale",
                torch.rand(outputs, groups, device=DEVICE, dtype=DTYPE) * spread / 4 + spread / 8,
            )
            if not quantization.symmetric:
                yield f"{name}.weight_zero_point", words(outputs // 8, groups)


def words(*shape: int) -> Tensor:
    return torch.randint(-(1 << 31), 1 << 31, shape, device=DEVICE).to(torch.int32)


def load(quantization: Quantization | None, report: Report) -> Decoder:
    """The whole model, with the time and memory that it took."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    begin = time.perf_counter()
    decoder = load_decoder(
        MODEL,
        random_tensors(MODEL, quantization),
        dtype=DTYPE,
        device=DEVICE,
        quantization=quantization,
        on_progress=tell,
    )
    torch.cuda.synchronize()
    report["load_seconds"] = round(time.perf_counter() - begin, 1)
    report["bytes"] = torch.cuda.memory_allocated() - before
    report["peak_bytes"] = torch.cuda.max_memory_allocated() - before
    return decoder


# Between the linears, the same for all.
@torch.compile(dynamic=False)
def norm(states: Tensor, weight: Tensor) -> Tensor:
    wide = states.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + MODEL.norm_eps)
    return weight * wide.to(states.dtype)


@torch.compile(dynamic=False)
def add_norm(states: Tensor, update: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    states = states + update
    wide = states.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + MODEL.norm_eps)
    return states, weight * wide.to(states.dtype)


@torch.compile(dynamic=False)
def swiglu(both: Tensor) -> Tensor:
    gate, up = both.chunk(2, dim=-1)
    return functional.silu(gate) * up


@torch.compile(dynamic=False)
def rotate_and_write(
    packed: Tensor, cosine: Tensor, sine: Tensor, keys: Tensor, values: Tensor
) -> Tensor:
    """(rows, tokens, all heads) → queries; keys and values into the cache's last places."""
    query, key, value = heads(packed)
    tokens = packed.shape[1]
    keys[:, :, -tokens:] = turn(key, cosine, sine)
    values[:, :, -tokens:] = value
    return turn(query, cosine, sine)


def turn(states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """`rotate` without a concatenation, which the compiler would not fuse."""
    signed = sine * torch.where(torch.arange(128, device=sine.device) < 64, -1, 1)
    return (states * cosine + states.roll(64, -1) * signed).to(states.dtype)


def heads(packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    widths = [MODEL.heads * 128, MODEL.kv_heads * 128, MODEL.kv_heads * 128]
    query, key, value = (
        part.view(*part.shape[:2], -1, 128).transpose(1, 2) for part in packed.split(widths, dim=-1)
    )
    return query, key, value


def attend(query: Tensor, keys: Tensor, values: Tensor, *, causal: bool) -> Tensor:
    if not causal:
        # One token a row: the queries that share a key head stand as tokens of one head.
        grouped = query.reshape(len(query), MODEL.kv_heads, -1, MODEL.head_dim)
        attended = functional.scaled_dot_product_attention(grouped, keys, values)
        return attended.reshape(len(query), 1, -1)
    attended = functional.scaled_dot_product_attention(
        query, keys, values, is_causal=True, enable_gqa=True
    )
    return attended.transpose(1, 2).flatten(2)


def step(decoder: Decoder, rows: int, tokens: int, context: int) -> Callable[[], Tensor]:
    """One forward pass of `tokens` new tokens in each of `rows`, `context` in the cache with them,
    and the logits of the last."""
    shape = (MODEL.layers, rows, MODEL.kv_heads, context, MODEL.head_dim)
    keys = torch.randn(shape, device=DEVICE, dtype=DTYPE)
    values = torch.randn(shape, device=DEVICE, dtype=DTYPE)
    embedded = torch.randn(rows, tokens, MODEL.hidden_size, device=DEVICE, dtype=DTYPE)
    places = torch.arange(context - tokens, context, device=DEVICE).expand(rows, tokens)
    lengths = torch.full((rows,), context, device=DEVICE)
    cosine, sine = decoder.rotary(places, lengths, DTYPE)
    layers: list[Any] = list(decoder.layers)

    def run() -> Tensor:
        states = embedded
        normed = norm(states, layers[0].input_layernorm.weight)
        for index, layer in enumerate(layers):
            packed = layer.self_attn.qkv_proj(normed)
            query = rotate_and_write(packed, cosine, sine, keys[index], values[index])
            attended = attend(query, keys[index], values[index], causal=tokens > 1)
            mixed = layer.self_attn.o_proj(attended)
            states, normed = add_norm(states, mixed, layer.post_attention_layernorm.weight)
            mixed = layer.mlp.down_proj(swiglu(layer.mlp.gate_up_proj(normed)))
            after = layers[index + 1].input_layernorm if index + 1 < len(layers) else decoder.norm
            states, normed = add_norm(states, mixed, after.weight)
        return decoder.logits(normed[:, -1])

    return run


@torch.compile(dynamic=False)
def dense_layer(states: Tensor, cosine: Tensor, sine: Tensor, weights: list[Tensor]) -> Tensor:
    first, qkv, out, second, gate_up, down = weights
    return layer_of(states, cosine, sine, first, second, qkv, out, gate_up, down, functional.linear)


@torch.compile(dynamic=False)
def fp8_layer(states: Tensor, cosine: Tensor, sine: Tensor, weights: list[Tensor]) -> Tensor:
    return layer_of_fp8(states, cosine, sine, weights, multiply_fp8)


@torch.compile(dynamic=False)
def fp8_scaled_after_layer(
    states: Tensor, cosine: Tensor, sine: Tensor, weights: list[Tensor]
) -> Tensor:
    return layer_of_fp8(states, cosine, sine, weights, multiply_scaled_after)


def multiply_scaled_after(states: Tensor, weight: Tensor, weight_scales: Tensor) -> Tensor:
    """A product without scales, which the compiler fuses with what comes after it."""
    values, scales = quantize_tokens(states.reshape(-1, states.shape[-1]))
    one = torch.ones((), device=states.device)
    product = torch._scaled_mm(
        values, weight.T, scale_a=one, scale_b=one, out_dtype=DTYPE, use_fast_accum=True
    )
    scaled = product.float() * scales * weight_scales
    return scaled.to(DTYPE).view(*states.shape[:-1], -1)


def layer_of_fp8(
    states: Tensor,
    cosine: Tensor,
    sine: Tensor,
    weights: list[Tensor],
    multiply: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Tensor:
    first, qkv, qkv_s, out, out_s, second, gate_up, gate_up_s, down, down_s = weights
    pairs = ((qkv, qkv_s), (out, out_s), (gate_up, gate_up_s), (down, down_s))
    return layer_of(
        states, cosine, sine, first, second, *pairs, lambda given, pair: multiply(given, *pair)
    )


def layer_of(
    states: Tensor,
    cosine: Tensor,
    sine: Tensor,
    first: Tensor,
    second: Tensor,
    qkv: Any,
    out: Any,
    gate_up: Any,
    down: Any,
    multiply: Callable[[Tensor, Any], Tensor],
) -> Tensor:
    wide = states.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + MODEL.norm_eps)
    query, key, value = heads(multiply(first * wide.to(DTYPE), qkv))
    query, key = turn(query, cosine, sine), turn(key, cosine, sine)
    states = states + multiply(attend(query, key, value, causal=True), out)
    wide = states.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + MODEL.norm_eps)
    gate, up = multiply(second * wide.to(DTYPE), gate_up).chunk(2, dim=-1)
    return states + multiply(functional.silu(gate) * up, down)


def compiled_prefill(decoder: Decoder, layer: Any) -> Callable[[], Tensor]:
    """A prefill whose layers are compiled whole, as the compiler fuses fp8's rounding."""
    embedded = torch.randn(1, PROMPT, MODEL.hidden_size, device=DEVICE, dtype=DTYPE)
    places = torch.arange(PROMPT, device=DEVICE)[None]
    cosine, sine = decoder.rotary(places, torch.tensor([PROMPT], device=DEVICE), DTYPE)
    weights: list[list[Tensor]] = []
    for part in decoder.layers:
        found: Any = part
        own: list[Tensor] = []
        for above, names in (
            (found.input_layernorm, (found.self_attn.qkv_proj, found.self_attn.o_proj)),
            (found.post_attention_layernorm, (found.mlp.gate_up_proj, found.mlp.down_proj)),
        ):
            own.append(above.weight)
            for linear in names:
                own.append(linear.weight)
                if not isinstance(linear, nn.Linear):
                    own.append(linear.scales)
        weights.append(own)

    def run() -> Tensor:
        states = embedded
        for own in weights:
            states = layer(states, cosine, sine, own)
        return decoder.logits(norm(states[:, -1:], decoder.norm.weight))

    return run


def graph(run: Callable[[], Tensor]) -> Callable[[], object]:
    """`run` as one CUDA graph, warmed up."""
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
    # What was captured reads tensors that only `run` holds.
    return lambda: (captured.replay(), run)


def alternate(runs: dict[str, Callable[[], object]], repeats: int, each: int) -> dict[str, float]:
    """Median milliseconds of each, measured in turns."""
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


def products(linear: W4A16Linear) -> Report:
    """Milliseconds of single products: cuBLAS in bf16, the kernel, dequantized and cuBLAS."""
    kernel, dense = linear.kernel, linear.kernel.dequantize()
    found: Report = {
        "kernel": kernel.name,
        "dequantized_from_rows": linear.dequantized_from,
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
    """The linear for gate and up of one layer."""
    outputs, inputs = 2 * MODEL.intermediate_size, MODEL.hidden_size
    groups = inputs // (quantization.group_size or inputs)
    scales = torch.rand(outputs, groups, device=DEVICE, dtype=DTYPE)
    zeros = None if quantization.symmetric else words(outputs // 8, groups)
    return W4A16Linear(choose_kernel(words(outputs, inputs // 8), scales, zeros, DTYPE, tell), None)


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def without_humming() -> Iterator[None]:
    """As on a machine without humming-kernels, but for the warning."""
    found = w4a16_module.humming_version
    w4a16_module.humming_version = lambda: None  # type: ignore[assignment]
    try:
        yield
    finally:
        w4a16_module.humming_version = found


@torch.inference_mode()
def main() -> None:
    global MODEL
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--layers", type=int, default=MODEL.layers)
    parser.add_argument(
        "--products",
        default="128a,128s,32a,32s",
        help="groups and symmetry for which single products are measured too",
    )
    arguments = parser.parse_args()
    MODEL = replace(MODEL, layers=arguments.layers)
    torch.manual_seed(0)
    report: Report = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "humming": humming_version(),
        "layers": MODEL.layers,
        "context": CONTEXT,
        "prompt": PROMPT,
    }
    models: dict[str, Decoder] = {}
    for name, quantization in (("bf16", None), ("w4a16", w4a16(128, False)), ("fp8", FP8)):
        report[name] = {}
        models[name] = load(quantization, report[name])
    with without_humming():
        report["w4a16 torch"] = {}
        models["w4a16 torch"] = load(w4a16(128, False), report["w4a16 torch"])
    for name in models:
        print(name, json.dumps(report[name]), flush=True)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        for rows in (1, 8, 32):
            runs = {name: graph(step(model, rows, 1, CONTEXT)) for name, model in models.items()}
            record(report, f"decode, {rows} row{'s' * (rows > 1)}", runs, 15, 10)
    with sdpa_kernel([SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION]):
        runs = {name: graph(step(model, 1, PROMPT, PROMPT)) for name, model in models.items()}
        record(report, "prefill", runs, 9, 1)
        runs = {
            "bf16": graph(compiled_prefill(models["bf16"], dense_layer)),
            "fp8": graph(compiled_prefill(models["fp8"], fp8_layer)),
            "fp8 scaled after": graph(compiled_prefill(models["fp8"], fp8_scaled_after_layer)),
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


def record(
    report: Report, name: str, runs: dict[str, Callable[[], object]], repeats: int, each: int
) -> None:
    """Measure, print and keep milliseconds and their ratios to bf16."""
    times = alternate(runs, repeats, each)
    ratios = {key: round(value / times["bf16"], 3) for key, value in times.items()}
    report[name] = {"ms": times, "to_bf16": ratios}
    print(name, json.dumps(report[name]), flush=True)


if __name__ == "__main__":
    main()
