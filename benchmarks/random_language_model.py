"""InternVL2-8B's language model with random weights, in 16 bits, 4 bits and fp8."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from vlmc.checkpoint.config import LanguageConfig
from vlmc.checkpoint.quantization import Quantization

DEVICE, DTYPE = "cuda", torch.bfloat16
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

FP8 = Quantization("fp8", None, True, ("Linear",), ("lm_head",))


def w4a16(group_size: int, symmetric: bool) -> Quantization:
    return Quantization("w4a16", group_size, symmetric, ("Linear",), ("lm_head",))


def random_tensors(
    config: LanguageConfig, quantization: Quantization | None
) -> Iterator[tuple[str, Tensor]]:
    """Random weights of realistic scale, generated on the GPU."""
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


def words(*shape: int) -> Tensor:
    return torch.randint(-(1 << 31), 1 << 31, shape, device=DEVICE).to(torch.int32)
