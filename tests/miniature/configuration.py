"""`config.json` of the miniatures: the keys of the released files with small sizes."""

from __future__ import annotations

from typing import Any, Literal

Tower = Literal["300m", "6b"]
Tokenizer = Literal["internlm2", "qwen2", "phi3", "yi", "llama3"]

_VISION: dict[str, Any] = {
    "architectures": ["InternVisionModel"],
    "attention_dropout": 0.0,
    "drop_path_rate": 0.0,
    "dropout": 0.0,
    "hidden_act": "gelu",
    "image_size": 448,
    "layer_norm_eps": 1e-06,
    "model_type": "intern_vit_6b",
    "num_channels": 3,
    "num_hidden_layers": 2,
    "patch_size": 14,
    "torch_dtype": "bfloat16",
    "use_bfloat16": True,
    "use_flash_attn": True,
}
VISION: dict[Tower, dict[str, Any]] = {
    "300m": {
        **_VISION,
        "hidden_size": 32,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "intermediate_size": 96,
        "norm_type": "layer_norm",
        "num_attention_heads": 2,
        "qk_normalization": False,
        "qkv_bias": True,
    },
    # An odd number of heads, as the 25 of the original.
    "6b": {
        **_VISION,
        "hidden_size": 48,
        "initializer_factor": 0.1,
        "initializer_range": 1e-10,
        "intermediate_size": 96,
        "norm_type": "rms_norm",
        "num_attention_heads": 3,
        "qk_normalization": True,
        "qkv_bias": False,
    },
}

_LANGUAGE: dict[str, Any] = {
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "hidden_size": 64,
    "initializer_range": 0.02,
    "intermediate_size": 96,
    "max_position_embeddings": 32768,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_bfloat16": True,
    "use_cache": True,
}
LANGUAGE: dict[Tokenizer, dict[str, Any]] = {
    "internlm2": {
        **_LANGUAGE,
        "architectures": ["InternLM2ForCausalLM"],
        "attn_implementation": "flash_attention_2",
        "bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "model_type": "internlm2",
        "pad_token_id": 2,
        "rope_scaling": {"factor": 2.0, "type": "dynamic"},
        "rope_theta": 1000000,
        "vocab_size": 616,
    },
    "qwen2": {
        **_LANGUAGE,
        "architectures": ["Qwen2ForCausalLM"],
        "bos_token_id": 440,
        "eos_token_id": 442,
        "max_window_layers": 2,
        "model_type": "qwen2",
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": 32768,
        "use_sliding_window": False,
        "vocab_size": 452,
    },
    # The window is short enough for one tile to lie inside it and three tiles beyond it.
    "phi3": {
        **_LANGUAGE,
        "architectures": ["Phi3ForCausalLM"],
        "bos_token_id": 1,
        "embd_pdrop": 0.0,
        "eos_token_id": 580,
        "max_position_embeddings": 16384,
        "model_type": "phi3",
        "num_key_value_heads": 4,
        "original_max_position_embeddings": 512,
        "pad_token_id": 580,
        "resid_pdrop": 0.0,
        "rope_scaling": {
            "long_factor": [1.02, 1.05, 1.3, 2.1, 4.7, 9.5, 17.25, 24.5],
            "short_factor": [1.0, 1.0, 1.05, 1.1, 1.25, 1.4, 1.6, 1.9],
            "type": "su",
        },
        "rope_theta": 10000.0,
        "sliding_window": 262144,
        "vocab_size": 600,
    },
    "yi": {
        **_LANGUAGE,
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "bos_token_id": 1,
        "eos_token_id": 7,
        "max_position_embeddings": 4096,
        "model_type": "llama",
        "pad_token_id": 0,
        "pretraining_tp": 1,
        "rope_theta": 5000000.0,
        "vocab_size": 589,
    },
    "llama3": {
        **_LANGUAGE,
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "bos_token_id": 440,
        "eos_token_id": 443,
        "max_position_embeddings": 8192,
        "model_type": "llama",
        "num_key_value_heads": 1,
        "pretraining_tp": 1,
        "rope_theta": 500000.0,
        "vocab_size": 459,
    },
}
TEMPLATES: dict[Tokenizer, str] = {
    "internlm2": "internlm2-chat",
    "qwen2": "Hermes-2",
    "phi3": "phi3-chat",
    "yi": "Hermes-2",
    "llama3": "internlm2-chat",
}
# Stop tokens of generation_config.json: the end and, for InternLM2, the start of a message.
STOP_TOKENS: dict[Tokenizer, list[int]] = {
    "internlm2": [605, 606],
    "qwen2": [442],
    "phi3": [587],
    "yi": [7],
    "llama3": [443],
}


def configuration(tokenizer: Tokenizer, tower: Tower) -> dict[str, Any]:
    """The whole config.json, free to be changed by the caller."""
    return {
        "_commit_hash": None,
        "architectures": ["InternVLChatModel"],
        "auto_map": {
            "AutoConfig": "configuration_internvl_chat.InternVLChatConfig",
            "AutoModel": "modeling_internvl_chat.InternVLChatModel",
            "AutoModelForCausalLM": "modeling_internvl_chat.InternVLChatModel",
        },
        "downsample_ratio": 0.5,
        "dynamic_image_size": True,
        "force_image_size": 448,
        "llm_config": dict(LANGUAGE[tokenizer]),
        "max_dynamic_patch": 12,
        "min_dynamic_patch": 1,
        "model_type": "internvl_chat",
        "ps_version": "v2",
        "select_layer": -1,
        "template": TEMPLATES[tokenizer],
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": None,
        "use_backbone_lora": 0,
        "use_llm_lora": 0,
        "use_thumbnail": True,
        "vision_config": dict(VISION[tower]),
    }
