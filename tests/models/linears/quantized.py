"""Quantized linears written by the formulas, for the tests of what reads them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.models.loaded import parts
from vlmc.checkpoint.config import LanguageConfig
from vlmc.checkpoint.huggingface import language_config_json
from vlmc.checkpoint.packed import pack
from vlmc.checkpoint.quantization import Quantization
from vlmc.models.linears.e4m3 import E4M3_MAX

Tensors = dict[str, Tensor]
EVERYWHERE = ("Linear",)
HEAD = ("lm_head",)


def w4a16(group_size: int | None, *, symmetric: bool, ignore: tuple[str, ...] = ()) -> Quantization:
    return Quantization("w4a16", group_size, symmetric, EVERYWHERE, HEAD + ignore)


FP8 = Quantization("fp8", None, True, EVERYWHERE, HEAD)


def int4(weight: Tensor, group_size: int | None, *, symmetric: bool) -> tuple[Tensors, Tensor]:
    """compressed-tensors' tensors of a weight (out, in) rounded to 4 bits, and what they say."""
    outputs, inputs = weight.shape
    grouped = weight.float().view(outputs, -1, group_size or inputs)
    low, high = grouped.amin(-1).clamp(max=0), grouped.amax(-1).clamp(min=0)
    if symmetric:
        scales = torch.maximum(-low, high) / 7.5
        zeros = torch.full_like(scales, 8)
    else:
        scales = (high - low) / 15
        zeros = (-low / scales).round()
    scales = scales.to(torch.bfloat16).float()
    values = (grouped / scales[..., None] + zeros[..., None]).round().clamp(0, 15)
    tensors = {
        "weight_packed": pack(values.flatten(1).to(torch.uint8)),
        "weight_scale": scales.to(torch.bfloat16),
        "weight_shape": torch.tensor(weight.shape),
    }
    if not symmetric:
        tensors["weight_zero_point"] = pack(zeros.T.to(torch.uint8)).T.contiguous()
    exact = ((values - zeros[..., None]) * scales[..., None]).flatten(1)
    return tensors, exact


def fp8(weight: Tensor) -> tuple[Tensors, Tensor]:
    """compressed-tensors' tensors of a weight (out, in) rounded to E4M3, and what they say."""
    scales = (weight.float().abs().amax(1, keepdim=True) / E4M3_MAX).to(torch.bfloat16)
    values = (weight.float() / scales.float()).clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)
    return {"weight": values, "weight_scale": scales}, values.float() * scales.float()


def quantized(
    tensors: Iterable[tuple[str, Tensor]], quantization: Quantization
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """A checkpoint's tensors with the linears that `quantization` covers quantized; beside each
    the dense tensor that it stands for (the last of a linear's stands for its weight, the others
    for nothing: an empty one)."""
    for name, tensor in tensors:
        linear, _, kind = name.rpartition(".")
        if kind != "weight" or tensor.dim() != 2 or not covered(linear, quantization):
            yield name, tensor, tensor
            continue
        if quantization.layout == "fp8":
            parts, exact = fp8(tensor)
        else:
            parts, exact = int4(tensor, quantization.group_size, symmetric=quantization.symmetric)
        *others, last = parts.items()
        for part, value in others:
            yield f"{linear}.{part}", value, torch.empty(0)
        yield f"{linear}.{last[0]}", last[1], exact


def write_language(
    folder: Path, quantization: Quantization, *, width: int, layers: int
) -> LanguageConfig:
    """An artifact's language folder of random weights, without its tokenizer."""
    config = LanguageConfig(
        architecture="LlamaForCausalLM",
        hidden_size=width,
        layers=layers,
        heads=width // 64,
        kv_heads=width // 64,
        head_dim=64,
        intermediate_size=4 * width,
        vocab_size=512,
        norm_eps=1e-6,
        rope_theta=1e4,
        max_positions=512,
    )
    values = language_config_json(config, dtype="bfloat16", bos_id=1, eos_id=2, pad_id=None)
    values["quantization_config"] = settings_of(quantization)
    (folder / "config.json").write_text(json.dumps(values))
    tensors = (
        (name, torch.randn(shape, dtype=torch.bfloat16) * 0.02)
        for name, shape in llama_shapes(config)
    )
    written = {name: tensor for name, tensor, _ in quantized(tensors, quantization)}
    save_file(written, folder / "model.safetensors", metadata={"format": "pt"})
    return config


def llama_shapes(config: LanguageConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Tensors of a Llama in Hugging Face's layout, as many key heads as heads."""
    width, inner = config.hidden_size, config.intermediate_size
    yield "model.embed_tokens.weight", (config.vocab_size, width)
    yield "lm_head.weight", (config.vocab_size, width)
    yield "model.norm.weight", (width,)
    for index in range(config.layers):
        layer = f"model.layers.{index}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"{layer}{norm}.weight", (width,)
        for part in "qkvo":
            yield f"{layer}self_attn.{part}_proj.weight", (width, width)
        for part in ("gate", "up"):
            yield f"{layer}mlp.{part}_proj.weight", (inner, width)
        yield f"{layer}mlp.down_proj.weight", (width, inner)


def settings_of(quantization: Quantization) -> dict[str, Any]:
    """As compressed-tensors writes them."""
    if quantization.layout == "fp8":
        weights = {"num_bits": 8, "type": "float", "strategy": "channel"}
        activations = {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": True}
    else:
        size = quantization.group_size
        weights = {
            "num_bits": 4,
            "type": "int",
            "symmetric": quantization.symmetric,
            "strategy": "channel" if size is None else "group",
            "group_size": size,
        }
        activations = None
    return {
        "quant_method": "compressed-tensors",
        "format": "float-quantized" if activations else "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {
            "group_0": {
                "targets": list(quantization.targets),
                "weights": weights,
                "input_activations": activations,
            }
        },
        "ignore": list(quantization.ignore),
    }


def covered(linear: str, quantization: Quantization) -> bool:
    """Embeddings are tables too, and no linears."""
    return "embed_tokens" not in linear and quantization.covers(linear)


def quantized_and_dense(
    folder: Path, quantization: Quantization
) -> tuple[LanguageConfig, list[tuple[str, Tensor]], list[tuple[str, Tensor]]]:
    """Configuration, the tensors quantized, and what they stand for."""
    config, _, language = parts(folder)
    triples = list(quantized(language.items(), quantization))
    dense = [
        (f"{name.rpartition('.')[0]}.weight" if ".weight_" in name else name, exact)
        for name, _, exact in triples
        if exact.numel()
    ]
    return config.language, [(name, tensor) for name, tensor, _ in triples], dense
