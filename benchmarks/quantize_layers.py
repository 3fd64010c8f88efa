"""Memory and time of quantizing layers of a released shape: `python -m benchmarks.quantize_layers`.

Uses random weights and states, and the same process as a build, with one decoder layer at a time.
Prints a line of JSON for each method: peak memory, its bound, and the extrapolated time of the
whole model. The bound is 4 · the largest layer + 4 · (largest inputs)² · 4 bytes + activations + 2
GB on a CPU or 6 GB on a GPU. Activations are the inputs of attention, MLP and down projection, and
two outputs, over all samples.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from vlmc.compile.language.quantization.job import write_job
from vlmc.compile.language.quantization.result import read_report
from vlmc.compile.language.quantization.run import run_job
from vlmc.compile.language.quantization.settings import Settings

SHAPES: dict[str, dict[str, Any]] = {
    "8b": {"hidden": 4096, "inner": 14336, "heads": 32, "kv_heads": 8, "layers": 32},
    "1b": {"hidden": 896, "inner": 4864, "heads": 14, "kv_heads": 2, "layers": 24},
}


def config_of(shape: dict[str, Any]) -> dict[str, Any]:
    """A config.json of a Llama."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape["hidden"],
        "intermediate_size": shape["inner"],
        "num_attention_heads": shape["heads"],
        "num_key_value_heads": shape["kv_heads"],
        "head_dim": shape["hidden"] // shape["heads"],
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e6,
        "max_position_embeddings": 32768,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
    }


def shapes_of(shape: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """(outputs, inputs) of a layer's linears."""
    hidden, inner = shape["hidden"], shape["inner"]
    value = hidden // shape["heads"] * shape["kv_heads"]
    return {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (value, hidden),
        "self_attn.v_proj": (value, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }


def random_layers(shape: dict[str, Any], count: int, device: str) -> Iterator[dict[str, Tensor]]:
    """Random bf16 layers with weights of realistic scale."""
    generator = torch.Generator(device).manual_seed(0)

    def drawn(outputs: int, inputs: int) -> Tensor:
        weight = torch.randn(outputs, inputs, generator=generator, device=device)
        return (weight / inputs**0.5).bfloat16().cpu()

    for _ in range(count):
        layer = {f"{name}.weight": drawn(*size) for name, size in shapes_of(shape).items()}
        ones = torch.ones(shape["hidden"], dtype=torch.bfloat16)
        yield layer | {"input_layernorm.weight": ones, "post_attention_layernorm.weight": ones + 0}


def write_states(folder: Path, hidden: int, samples: int, tokens: int, device: str) -> None:
    """Write random samples that are concentrated in a few hundred directions."""
    generator = torch.Generator(device).manual_seed(1)
    directions = torch.randn(256, hidden, generator=generator, device=device) / 16
    for index in range(samples):
        states = torch.randn(tokens, 256, generator=generator, device=device) @ directions
        states += 0.1 * torch.randn(tokens, hidden, generator=generator, device=device)
        save_file({"embeddings": states.bfloat16().cpu()}, folder / f"{index:05d}.safetensors")


def main() -> None:
    """Quantize and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="1b")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=512, help="of a sample")
    parser.add_argument("--methods", default="awq,gptq")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    shape = SHAPES[options.shape]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    results = []
    with tempfile.TemporaryDirectory() as name:
        states = Path(name) / "states"
        states.mkdir()
        write_states(states, shape["hidden"], options.samples, options.tokens, device)
        for method in options.methods.split(","):
            job = Path(name) / method
            job.mkdir()
            settings = Settings(method, 128, False, "bfloat16", options.layers, samples=str(states))
            layers = random_layers(shape, options.layers, device)
            write_job(job, layers, settings, config_of(shape))
            start = time.perf_counter()
            run_job(job)
            seconds = time.perf_counter() - start
            results.append(_result(options, shape, method, read_report(job), seconds))
            print(json.dumps(results[-1]), flush=True)
    if options.output is not None:
        options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _result(
    options: argparse.Namespace,
    shape: dict[str, Any],
    method: str,
    report: dict[str, Any],
    seconds: float,
) -> dict[str, Any]:
    hidden, inner = shape["hidden"], shape["inner"]
    gpu = report["device"] == "cuda"
    width = 2 if gpu else 4  # bytes per value in the compute dtype
    layer = 2 * sum(outputs * inputs for outputs, inputs in shapes_of(shape).values())
    squares = 4 * max(hidden, inner) ** 2 * 4
    activations = options.samples * options.tokens * (4 * hidden + inner) * width
    peak = report["peak_device_memory_bytes"] if gpu else report["peak_memory_bytes"]
    bound = 4 * layer + squares + activations + (6e9 if gpu else 2e9)
    errors = [part["output_error"] for part in report["linears"]]
    steady = report["layer_seconds"][1:] or report["layer_seconds"]
    return {
        "shape": options.shape,
        "method": method,
        "device": report["device"],
        "layers": options.layers,
        "tokens": options.samples * options.tokens,
        "peak_bytes": peak,
        "peak_host_bytes": report["peak_memory_bytes"],
        "bound_bytes": int(bound),
        "activation_bytes": activations,
        "within": peak <= bound,
        "seconds": seconds,
        "layer_seconds": report["layer_seconds"],
        "whole_model_seconds_extrapolated": shape["layers"] * sum(steady) / len(steady),
        "worst_output_error": max(errors),
        "notes": report["notes"],
    }


if __name__ == "__main__":
    main()
