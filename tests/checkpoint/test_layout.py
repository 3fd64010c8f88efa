"""The layouts of the released sizes hold as many parameters as were published."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import pytest

from vlmc.checkpoint.config import parse_config
from vlmc.checkpoint.layout import original_shapes

SMALL_TOWER: dict[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "image_size": 448,
    "norm_type": "layer_norm",
    "qk_normalization": False,
    "qkv_bias": True,
}
LARGE_TOWER: dict[str, Any] = {
    "hidden_size": 3200,
    "num_hidden_layers": 45,
    "num_attention_heads": 25,
    "intermediate_size": 12800,
    "image_size": 448,
}
# Architecture, tower, width, layers, heads, key heads, inner width, vocabulary, billions in all.
RELEASED = {
    "1B": ("Qwen2", SMALL_TOWER, 896, 24, 14, 2, 4864, 151655, 0.938),
    "2B": ("InternLM2", SMALL_TOWER, 2048, 24, 16, 8, 8192, 92553, 2.206),
    "4B": ("Phi3", SMALL_TOWER, 3072, 32, 32, 32, 8192, 32020, 4.147),
    "8B": ("InternLM2", SMALL_TOWER, 4096, 32, 32, 8, 14336, 92553, 8.075),
    "26B": ("InternLM2", LARGE_TOWER, 6144, 48, 48, 8, 16384, 92553, 25.514),
    "40B": ("Llama", LARGE_TOWER, 7168, 60, 56, 8, 20480, 64009, 40.069),
    "76B": ("Llama", LARGE_TOWER, 8192, 80, 64, 8, 28672, 128265, 76.262),
}


@pytest.mark.parametrize("size", RELEASED)
def test_released_sizes(size: str) -> None:
    name, tower, width, layers, heads, key_heads, inner, vocabulary, billions = RELEASED[size]
    config = parse_config(
        {
            "model_type": "internvl_chat",
            "template": "internlm2-chat",
            "vision_config": tower,
            "llm_config": {
                "architectures": [f"{name}ForCausalLM"],
                "hidden_size": width,
                "num_hidden_layers": layers,
                "num_attention_heads": heads,
                "num_key_value_heads": key_heads,
                "intermediate_size": inner,
                "vocab_size": vocabulary,
                "bias": False,
                "hidden_act": "silu",
                "max_position_embeddings": 8192,
                "rms_norm_eps": 1e-5,
                "rope_theta": 1e6,
            },
        },
        Path("config.json"),
    )
    shapes = original_shapes(config)
    vision = sum(prod(shape) for key, shape in shapes.items() if key.startswith("vision_model."))
    assert vision == (304_012_288 if tower is SMALL_TOWER else 5_536_496_000)
    assert round(sum(map(prod, shapes.values())) / 1e9, 3) == billions
