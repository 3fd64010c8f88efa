"""Tensors of the four miniature language models, under their original names."""

from __future__ import annotations

from typing import Any

from tests.miniature.draw import around, draw, matrix
from tests.miniature.vision_tensors import Tensors

PREFIX = "language_model."


def language_tensors(config: dict[str, Any], seed: int) -> Tensors:
    """`language_model.*` of `config` (an llm_config)."""
    architecture = config["architectures"][0]
    width, vocabulary = config["hidden_size"], config["vocab_size"]
    internlm2 = architecture == "InternLM2ForCausalLM"
    embedding = "model.tok_embeddings.weight" if internlm2 else "model.embed_tokens.weight"
    head = "output.weight" if internlm2 else "lm_head.weight"
    tensors: Tensors = {
        PREFIX + embedding: draw("embedding", (vocabulary, width), seed),
        PREFIX + head: matrix("head", vocabulary, width, seed, gain=2.0),
        f"{PREFIX}model.norm.weight": around("norm", width, seed, 1.0, 0.2),
    }
    for layer in range(config["num_hidden_layers"]):
        tensors |= _layer(config, architecture, f"{PREFIX}model.layers.{layer}.", seed)
    return tensors


def _layer(config: dict[str, Any], architecture: str, prefix: str, seed: int) -> Tensors:
    width, inner = config["hidden_size"], config["intermediate_size"]
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    size = width // heads
    queries, keys = heads * size, groups * size
    linears: dict[str, tuple[int, int, float]]
    if architecture == "InternLM2ForCausalLM":
        norms = ("attention_norm", "ffn_norm")
        linears = {
            "attention.wqkv": (queries + 2 * keys, width, 1.3),
            "attention.wo": (width, queries, 1.0),
            "feed_forward.w1": (inner, width, 1.3),
            "feed_forward.w3": (inner, width, 1.0),
            "feed_forward.w2": (width, inner, 1.0),
        }
    elif architecture == "Phi3ForCausalLM":
        norms = ("input_layernorm", "post_attention_layernorm")
        linears = {
            "self_attn.qkv_proj": (queries + 2 * keys, width, 1.1),
            "self_attn.o_proj": (width, queries, 1.0),
            "mlp.gate_up_proj": (2 * inner, width, 1.2),
            "mlp.down_proj": (width, inner, 1.0),
        }
    else:
        norms = ("input_layernorm", "post_attention_layernorm")
        linears = {
            "self_attn.q_proj": (queries, width, 1.3),
            "self_attn.k_proj": (keys, width, 1.3),
            "self_attn.v_proj": (keys, width, 1.3),
            "self_attn.o_proj": (width, queries, 1.0),
            "mlp.gate_proj": (inner, width, 1.3),
            "mlp.up_proj": (inner, width, 1.0),
            "mlp.down_proj": (width, inner, 1.0),
        }
    tensors: Tensors = {
        f"{prefix}{norm}.weight": around(prefix + norm, width, seed, 1.0, 0.2) for norm in norms
    }
    for name, (outputs, inputs, gain) in linears.items():
        tensors[f"{prefix}{name}.weight"] = matrix(prefix + name, outputs, inputs, seed, gain)
    for name in _biased(config, architecture):
        bias = f"{prefix}{name}.bias"
        tensors[bias] = around(bias, linears[name][0], seed, 0.0, 0.4)
    return tensors


def _biased(config: dict[str, Any], architecture: str) -> tuple[str, ...]:
    if architecture == "Qwen2ForCausalLM":
        return ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    if architecture == "InternLM2ForCausalLM" and config["bias"]:
        return ("attention.wqkv", "attention.wo")
    if architecture == "LlamaForCausalLM" and config["attention_bias"]:
        return ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
    return ()
