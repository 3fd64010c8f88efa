"""A language model with random weights, in 16 bits, 4 bits or fp8."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from vlmc.checkpoint.config import LanguageConfig
from vlmc.checkpoint.quantization import Quantization
from vlmc.distributed.group import ALONE, Group
from vlmc.models.language.decoder import Decoder
from vlmc.models.language.load import load_decoder

LanguagePrecision = Literal["fp32", "bf16", "fp8", "w4a16"]
FP8 = Quantization("fp8", None, True, ("Linear",), ("lm_head",))
# The second for hidden sizes that the first does not divide.
_GROUP_SIZES = (128, 32)


def w4a16(group_size: int, symmetric: bool) -> Quantization:
    """Four bits in groups, as `language.scheme: w4a16` has them."""
    return Quantization("w4a16", group_size, symmetric, ("Linear",), ("lm_head",))


def quantization_of(precision: LanguagePrecision, config: LanguageConfig) -> Quantization | None:
    """How the linears are stored; None in 16 bits."""
    if precision == "w4a16":
        sizes = (config.hidden_size, config.intermediate_size)
        fitting = (group for group in _GROUP_SIZES if not any(size % group for size in sizes))
        return w4a16(next(fitting), symmetric=False)
    return FP8 if precision == "fp8" else None


def random_decoder(
    config: LanguageConfig,
    precision: LanguagePrecision,
    device: torch.device,
    group: Group = ALONE,
) -> Decoder:
    """A decoder made on the device with a fixed seed, or this rank's shard of it; in fp32 or bf16
    beside its linears."""
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    quantization = quantization_of(precision, config)
    return load_decoder(
        config,
        random_tensors(config, quantization, dtype, device),
        dtype=dtype,
        device=device,
        quantization=quantization,
        group=group,
    )


def random_tensors(
    config: LanguageConfig,
    quantization: Quantization | None,
    dtype: torch.dtype,
    device: torch.device,
    seed: int = 0,
) -> Iterator[tuple[str, Tensor]]:
    """Random weights of realistic scale, one at a time; they differ between CPU and GPU."""
    spread = config.hidden_size**-0.5
    generator = torch.Generator(device).manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        drawn = torch.randn(shape, device=device, dtype=dtype, generator=generator)
        return drawn.mul_(spread)

    def words(*shape: int) -> Tensor:
        drawn = torch.randint(-(1 << 31), 1 << 31, shape, device=device, generator=generator)
        return drawn.to(torch.int32)

    yield "model.embed_tokens.weight", normal(config.vocab_size, config.hidden_size)
    yield "lm_head.weight", normal(config.vocab_size, config.hidden_size)
    norms = ["model.norm.weight"]
    for index in range(config.layers):
        norms += [
            f"model.layers.{index}.{norm}.weight"
            for norm in ("input_layernorm", "post_attention_layernorm")
        ]
    for name in norms:
        yield name, torch.ones(config.hidden_size, device=device, dtype=dtype)
    for name, outputs, inputs in _linears(config):
        if config.qkv_bias and name.endswith(("q_proj", "k_proj", "v_proj")):
            yield f"{name}.bias", normal(outputs)
        if quantization is None:
            yield f"{name}.weight", normal(outputs, inputs)
        elif quantization.layout == "fp8":
            yield f"{name}.weight", (normal(outputs, inputs) * 64).to(torch.float8_e4m3fn)
            yield f"{name}.weight_scale", torch.full((outputs, 1), 1 / 64, device=device)
        else:
            groups = inputs // (quantization.group_size or inputs)
            scales = torch.rand(outputs, groups, device=device, dtype=dtype, generator=generator)
            yield f"{name}.weight_packed", words(outputs, inputs // 8)
            yield f"{name}.weight_scale", scales * spread / 4 + spread / 8
            if not quantization.symmetric:
                yield f"{name}.weight_zero_point", words(outputs // 8, groups)


def _linears(config: LanguageConfig) -> Iterator[tuple[str, int, int]]:
    """Name, outputs and inputs of every linear in the layers."""
    hidden, inner = config.hidden_size, config.intermediate_size
    query, value = config.heads * config.head_dim, config.kv_heads * config.head_dim
    for index in range(config.layers):
        layer = f"model.layers.{index}."
        yield f"{layer}self_attn.q_proj", query, hidden
        yield f"{layer}self_attn.k_proj", value, hidden
        yield f"{layer}self_attn.v_proj", value, hidden
        yield f"{layer}self_attn.o_proj", hidden, query
        yield f"{layer}mlp.gate_proj", inner, hidden
        yield f"{layer}mlp.up_proj", inner, hidden
        yield f"{layer}mlp.down_proj", hidden, inner
