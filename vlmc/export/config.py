"""config.json of the exported layouts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vlmc.artifact.manifest import Manifest
from vlmc.checkpoint.huggingface import HEAD
from vlmc.image.tiles import TILE_SIZE, TOKENS_PER_TILE, TileRule
from vlmc.models.vision.tower_file import TowerFileConfig

_QUANTIZATION = "quantization_config"


@dataclass(frozen=True, slots=True)
class Sources:
    """What a config.json is made from."""

    manifest: Manifest
    tower: TowerFileConfig
    language: Mapping[str, Any]  # the artifact's language/config.json
    image_token_id: int
    tokens: int  # of the tokenizer
    tiles: TileRule  # as the engine applies it


def hf_config(sources: Sources, *, dynamic_rope: bool = True) -> dict[str, Any]:
    """Of `InternVLForConditionalGeneration`, which transformers, vLLM and LMDeploy load; see
    `text_config`."""
    tower, dtype = sources.tower, sources.manifest.language_dtype
    vision = tower.vision
    return {
        "architectures": ["InternVLForConditionalGeneration"],
        "model_type": "internvl",
        "torch_dtype": dtype,
        "image_token_id": sources.image_token_id,
        "image_seq_length": TOKENS_PER_TILE,
        "downsample_ratio": 0.5,
        "projector_hidden_act": "gelu",
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": False,
        "text_config": text_config(sources.language, dynamic_rope=dynamic_rope),
        "vision_config": {
            "architectures": ["InternVLVisionModel"],
            "model_type": "internvl_vision",
            "torch_dtype": dtype,
            "hidden_size": vision.hidden_size,
            # Blocks beyond the one whose output is taken are not in the artifact.
            "num_hidden_layers": tower.vision_layers,
            "num_attention_heads": vision.heads,
            "intermediate_size": vision.intermediate_size,
            "image_size": [TILE_SIZE, TILE_SIZE],
            "patch_size": [vision.patch_size, vision.patch_size],
            "num_channels": 3,
            "hidden_act": "gelu",
            "norm_type": vision.norm,
            "layer_norm_eps": vision.norm_eps,
            "attention_bias": vision.qkv_bias,
            "use_qk_norm": vision.qk_norm,
            "use_absolute_position_embeddings": True,
            "use_mask_token": False,
            "use_mean_pooling": True,  # no norm after the last block
            "attention_dropout": 0.0,
            "hidden_dropout_prob": 0.0,
            "projection_dropout": 0.0,
            "layer_scale_init_value": 0.1,
            "initializer_range": 0.02,
        },
        **_quantization(sources.language, ("vision_tower", "multi_modal_projector")),
    }


def chat_config(sources: Sources) -> dict[str, Any]:
    """Of `InternVLChatModel`, the original layout, with a Qwen2 as SGLang loads it."""
    tower, tiles = sources.tower, sources.tiles
    vision, dtype = tower.vision, sources.manifest.language_dtype
    left_out = ("attention_bias", "mlp_bias")
    return {
        "architectures": ["InternVLChatModel"],
        "model_type": "internvl_chat",
        "torch_dtype": dtype,
        "template": sources.manifest.prompt.template,
        "select_layer": -1,
        "ps_version": tower.pixel_shuffle,
        "downsample_ratio": 0.5,
        "force_image_size": TILE_SIZE,
        "dynamic_image_size": tiles.name != "single",
        "use_thumbnail": tiles.thumbnail,
        "min_dynamic_patch": tiles.min,
        "max_dynamic_patch": tiles.max,
        "pad2square": False,
        "use_backbone_lora": 0,
        "use_llm_lora": 0,
        "tie_word_embeddings": False,
        "llm_config": {
            key: value
            for key, value in text_config(sources.language, dynamic_rope=False).items()
            if key not in left_out
        }
        | {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "use_sliding_window": False,
        },
        "vision_config": {
            "architectures": ["InternVisionModel"],
            "model_type": "intern_vit_6b",
            "torch_dtype": dtype,
            "hidden_size": vision.hidden_size,
            "num_hidden_layers": tower.vision_layers,
            "num_attention_heads": vision.heads,
            "intermediate_size": vision.intermediate_size,
            "image_size": TILE_SIZE,
            "patch_size": vision.patch_size,
            "num_channels": 3,
            "hidden_act": "gelu",
            "norm_type": vision.norm,
            "layer_norm_eps": vision.norm_eps,
            "qkv_bias": vision.qkv_bias,
            "qk_normalization": vision.qk_norm,
            "attention_dropout": 0.0,
            "dropout": 0.0,
            "drop_path_rate": 0.0,
            "initializer_factor": 1.0,
            "initializer_range": 0.02,
            "use_flash_attn": True,
        },
        **_quantization(sources.language, ("vision_model", "mlp1")),
    }


def text_config(language: Mapping[str, Any], *, dynamic_rope: bool) -> dict[str, Any]:
    """The language model's config.json as other programs read it, without quantization.

    Without `dynamic_rope`, dynamic scaling of positions is left out: SGLang, and vLLM before its
    change 41277 of 2026, apply it to every prompt, and not only to those that are too long.
    """
    values = {key: value for key, value in language.items() if key != _QUANTIZATION}
    scaling = values["rope_scaling"]
    if has_dynamic_rope(language) and not dynamic_rope:
        values["rope_scaling"] = None
    elif scaling is not None and scaling["type"] == "longrope":
        # transformers 4 refuses a Phi-3 with any other key than these.
        keys = ("type", "short_factor", "long_factor")
        values["rope_scaling"] = {key: scaling[key] for key in keys}
    return values


def has_dynamic_rope(language: Mapping[str, Any]) -> bool:
    """Whether positions are scaled once a prompt is longer than `max_position_embeddings`."""
    scaling = language["rope_scaling"]
    return scaling is not None and scaling["type"] == "dynamic"


def kept_linears(language: Mapping[str, Any]) -> list[str]:
    """Linears of the language model's layers that are in 16 bits in a quantized model."""
    ignored = language.get(_QUANTIZATION, {}).get("ignore", [])
    return [name for name in ignored if name != HEAD]


def _quantization(language: Mapping[str, Any], others: Iterable[str]) -> dict[str, Any]:
    """`quantization_config` at the top, where every engine looks for it first.

    Names are patterns, because modules are called differently in every engine.
    """
    if _QUANTIZATION not in language:
        return {}
    kept = [f"re:.*{re.escape(name.removeprefix('model.'))}$" for name in kept_linears(language)]
    ignore = [f"re:.*{HEAD}$", *(f"re:.*{name}\\..*" for name in others), *kept]
    return {_QUANTIZATION: dict(language[_QUANTIZATION]) | {"ignore": ignore}}
