"""Tensors of a miniature vision tower and projector, under their original names."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.miniature.draw import around, draw, matrix

Tensors = dict[str, NDArray[np.float32]]


def vision_tensors(config: dict[str, Any], language_width: int, seed: int) -> Tensors:
    """`vision_model.*` of `config` (a vision_config) and `mlp1.*` to `language_width`."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    patch = config["patch_size"]
    positions = (config["image_size"] // patch) ** 2 + 1
    prefix = "vision_model.embeddings."
    tensors: Tensors = {
        f"{prefix}class_embedding": draw("class", (1, 1, width), seed),
        f"{prefix}position_embedding": draw("position", (1, positions, width), seed) * 0.5,
        f"{prefix}patch_embedding.weight": matrix(
            "patch", width, 3 * patch * patch, seed, gain=1.5
        ).reshape(width, 3, patch, patch),
        f"{prefix}patch_embedding.bias": around("patch bias", width, seed, 0.0, 0.2),
    }
    for layer in range(config["num_hidden_layers"]):
        tensors |= _block(config, f"vision_model.encoder.layers.{layer}.", width, inner, seed)
    joined = 4 * width
    tensors |= {
        "mlp1.0.weight": around("mlp1.0.weight", joined, seed, 1.0, 0.2),
        "mlp1.0.bias": around("mlp1.0.bias", joined, seed, 0.0, 0.1),
        "mlp1.1.weight": matrix("mlp1.1.weight", language_width, joined, seed, gain=1.5),
        "mlp1.1.bias": around("mlp1.1.bias", language_width, seed, 0.0, 0.1),
        "mlp1.3.weight": matrix("mlp1.3.weight", language_width, language_width, seed, gain=1.5),
        "mlp1.3.bias": around("mlp1.3.bias", language_width, seed, 0.0, 0.1),
    }
    return tensors


def _block(config: dict[str, Any], prefix: str, width: int, inner: int, seed: int) -> Tensors:
    def vector(name: str, size: int, centre: float, spread: float) -> None:
        tensors[prefix + name] = around(prefix + name, size, seed, centre, spread)

    def linear(name: str, outputs: int, inputs: int, gain: float) -> None:
        tensors[prefix + name] = matrix(prefix + name, outputs, inputs, seed, gain)

    tensors: Tensors = {}
    for norm in ("norm1", "norm2"):
        vector(f"{norm}.weight", width, 1.0, 0.2)
        if config["norm_type"] == "layer_norm":
            vector(f"{norm}.bias", width, 0.0, 0.1)
    linear("attn.qkv.weight", 3 * width, width, 1.4)
    if config["qkv_bias"]:
        vector("attn.qkv.bias", 3 * width, 0.0, 0.2)
    if config["qk_normalization"]:
        vector("attn.q_norm.weight", width, 1.4, 0.2)
        vector("attn.k_norm.weight", width, 1.4, 0.2)
    linear("attn.proj.weight", width, width, 1.5)
    vector("attn.proj.bias", width, 0.0, 0.1)
    vector("ls1", width, 0.8, 0.15)
    vector("ls2", width, 0.8, 0.15)
    linear("mlp.fc1.weight", inner, width, 1.2)
    vector("mlp.fc1.bias", inner, 0.0, 0.1)
    linear("mlp.fc2.weight", width, inner, 1.2)
    vector("mlp.fc2.bias", width, 0.0, 0.1)
    return tensors
