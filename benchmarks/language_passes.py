"""Passes through a language model on a GPU whose parts between the linears are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmc.bench.synthetic.shapes import SHAPES
from vlmc.models.language.decoder import Decoder
from vlmc.models.linears.dequantize import quantize_tokens
from vlmc.models.linears.fp8 import multiply_fp8

DEVICE, DTYPE = "cuda", torch.bfloat16
MODEL = SHAPES["internvl2-8b"].language


# Operations between the linears, shared by all variants.
@torch.compile(dynamic=False)
def norm(states: Tensor, weight: Tensor) -> Tensor:
    fp32 = states.float()
    fp32 = fp32 * torch.rsqrt(fp32.pow(2).mean(-1, keepdim=True) + MODEL.norm_eps)
    return weight * fp32.to(states.dtype)


@torch.compile(dynamic=False)
def add_norm(states: Tensor, update: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    states = states + update
    fp32 = states.float()
    fp32 = fp32 * torch.rsqrt(fp32.pow(2).mean(-1, keepdim=True) + MODEL.norm_eps)
    return states, weight * fp32.to(states.dtype)


@torch.compile(dynamic=False)
def swiglu(both: Tensor) -> Tensor:
    gate, up = both.chunk(2, dim=-1)
    return functional.silu(gate) * up


@torch.compile(dynamic=False)
def rotate_and_write(
    packed: Tensor, cosine: Tensor, sine: Tensor, keys: Tensor, values: Tensor
) -> Tensor:
    """Split (rows, tokens, all heads); writes keys and values to the end of the cache."""
    query, key, value = heads(packed)
    tokens = packed.shape[1]
    keys[:, :, -tokens:] = turn(key, cosine, sine)
    values[:, :, -tokens:] = value
    return turn(query, cosine, sine)


def turn(states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """`rotate` without concatenation, which the compiler does not fuse."""
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
        # One token per row: treat the queries that share a key head as tokens of one head.
        grouped = query.reshape(len(query), MODEL.kv_heads, -1, MODEL.head_dim)
        attended = functional.scaled_dot_product_attention(grouped, keys, values)
        return attended.reshape(len(query), 1, -1)
    attended = functional.scaled_dot_product_attention(
        query, keys, values, is_causal=True, enable_gqa=True
    )
    return attended.transpose(1, 2).flatten(2)


def step(decoder: Decoder, rows: int, tokens: int, context: int) -> Callable[[], Tensor]:
    """One forward pass with logits of the last token.

    Each row has `tokens` new tokens and `context` tokens in the cache, including the new ones.
    """
    shape = (len(decoder.layers), rows, MODEL.kv_heads, context, MODEL.head_dim)
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


def compiled_prefill(decoder: Decoder, tokens: int, layer: Any) -> Callable[[], Tensor]:
    """A prefill with whole layers compiled, so that fp8 quantization is fused."""
    embedded = torch.randn(1, tokens, MODEL.hidden_size, device=DEVICE, dtype=DTYPE)
    places = torch.arange(tokens, device=DEVICE)[None]
    cosine, sine = decoder.rotary(places, torch.tensor([tokens], device=DEVICE), DTYPE)
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
    """A product whose scales are applied afterwards, so that the compiler fuses them."""
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
    fp32 = states.float()
    fp32 = fp32 * torch.rsqrt(fp32.pow(2).mean(-1, keepdim=True) + MODEL.norm_eps)
    query, key, value = heads(multiply(first * fp32.to(DTYPE), qkv))
    query, key = turn(query, cosine, sine), turn(key, cosine, sine)
    states = states + multiply(attend(query, key, value, causal=True), out)
    fp32 = states.float()
    fp32 = fp32 * torch.rsqrt(fp32.pow(2).mean(-1, keepdim=True) + MODEL.norm_eps)
    gate, up = multiply(second * fp32.to(DTYPE), gate_up).chunk(2, dim=-1)
    return states + multiply(functional.silu(gate) * up, down)
