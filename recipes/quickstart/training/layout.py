"""The quickstart model's shape, and its checkpoint in the layout of the released InternVL2-2B."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from recipes.quickstart.training.make_tokenizer import write_json
from vlmc.checkpoint.config import LanguageConfig, ModelConfig, parse_config
from vlmc.models.language.decoder import Decoder
from vlmc.models.vision.tower import VisionTower

CHECKPOINT = Path(__file__).parents[1] / "checkpoint"
VISION = {
    "architectures": ["InternVisionModel"],
    "attention_dropout": 0.0,
    "drop_path_rate": 0.0,
    "dropout": 0.0,
    "hidden_act": "gelu",
    "hidden_size": 96,
    "image_size": 448,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 384,
    "layer_norm_eps": 1e-06,
    "model_type": "intern_vit_6b",
    "norm_type": "layer_norm",
    "num_attention_heads": 3,
    "num_channels": 3,
    "num_hidden_layers": 4,
    "patch_size": 14,
    "qk_normalization": False,
    "qkv_bias": True,
    "torch_dtype": "bfloat16",
    "use_bfloat16": True,
    "use_flash_attn": True,
}
LANGUAGE = {
    "architectures": ["InternLM2ForCausalLM"],
    "attn_implementation": "flash_attention_2",
    "bias": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 256,
    "initializer_range": 0.02,
    "intermediate_size": 512,
    "max_position_embeddings": 32768,
    "model_type": "internlm2",
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "pad_token_id": 2,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {"factor": 2.0, "type": "dynamic"},
    "rope_theta": 1000000,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_bfloat16": True,
    "use_cache": True,
    "vocab_size": 896,
}
TOP: dict[str, Any] = {
    "architectures": ["InternVLChatModel"],
    "auto_map": {
        "AutoConfig": "configuration_internvl_chat.InternVLChatConfig",
        "AutoModel": "modeling_internvl_chat.InternVLChatModel",
        "AutoModelForCausalLM": "modeling_internvl_chat.InternVLChatModel",
    },
    "downsample_ratio": 0.5,
    "dynamic_image_size": True,
    "force_image_size": 448,
    "llm_config": LANGUAGE,
    "max_dynamic_patch": 12,
    "min_dynamic_patch": 1,
    "model_type": "internvl_chat",
    "ps_version": "v2",
    "select_layer": -1,
    "template": "internlm2-chat",
    "torch_dtype": "bfloat16",
    "use_backbone_lora": 0,
    "use_llm_lora": 0,
    "use_thumbnail": True,
    "vision_config": VISION,
}
# <|im_end|> and <|im_start|>, as the released file has them.
GENERATION = {"eos_token_id": [885, 886]}


def model_config() -> ModelConfig:
    """What `config.json` describes."""
    return parse_config(TOP, CHECKPOINT / "config.json")


def original_tensors(tower: VisionTower, decoder: Decoder) -> dict[str, Tensor]:
    """Every weight under its original name, in the models' own dtype."""
    tensors = dict(tower.state_dict())
    for name, tensor in decoder.state_dict().items():
        tensors |= {
            f"language_model.{key}": value
            for key, value in _original(decoder.config, name, tensor).items()
        }
    return tensors


def _original(config: LanguageConfig, name: str, tensor: Tensor) -> dict[str, Tensor]:
    """One tensor of the decoder as InternLM2 names and packs it."""
    if name == "embed_tokens.weight":
        return {"model.tok_embeddings.weight": tensor}
    if name == "lm_head.weight":
        return {"output.weight": tensor}
    if name == "norm.weight":
        return {"model.norm.weight": tensor}
    _, index, part = name.split(".", 2)
    prefix = f"model.layers.{index}."
    if part == "self_attn.qkv_proj.weight":
        return {f"{prefix}attention.wqkv.weight": pack_wqkv(config, tensor)}
    if part == "mlp.gate_up_proj.weight":
        gate, up = tensor.chunk(2)
        return {
            f"{prefix}feed_forward.w1.weight": gate,
            f"{prefix}feed_forward.w3.weight": up,
        }
    renamed = {
        "self_attn.o_proj.weight": "attention.wo.weight",
        "mlp.down_proj.weight": "feed_forward.w2.weight",
        "input_layernorm.weight": "attention_norm.weight",
        "post_attention_layernorm.weight": "ffn_norm.weight",
    }
    return {prefix + renamed[part]: tensor}


def pack_wqkv(config: LanguageConfig, fused: Tensor) -> Tensor:
    """Rows [all queries | all keys | all values] to one block a key-value head: its g queries,
    its key, its value; shape ((heads + 2 · kv_heads) · head_dim, hidden) in and out."""
    size = config.head_dim
    query, key, value = torch.split(
        fused, [config.heads * size, config.kv_heads * size, config.kv_heads * size]
    )
    groups = (query.reshape(config.kv_heads, -1, size, fused.shape[1]), key, value)
    blocks = [part.reshape(config.kv_heads, -1, size, fused.shape[1]) for part in groups]
    return torch.cat(blocks, dim=1).reshape(fused.shape)


def unpack_wqkv(config: LanguageConfig, packed: Tensor) -> Tensor:
    """The inverse of `pack_wqkv`."""
    size, group = config.head_dim, config.heads // config.kv_heads
    blocks = packed.reshape(config.kv_heads, group + 2, size, packed.shape[1])
    parts = (blocks[:, :group], blocks[:, group], blocks[:, group + 1])
    return torch.cat([part.reshape(-1, packed.shape[1]) for part in parts])


def write_configuration(folder: Path = CHECKPOINT) -> None:
    """Write config.json and generation_config.json."""
    write_json(folder / "config.json", TOP)
    write_json(folder / "generation_config.json", GENERATION)


def write_weights(tower: VisionTower, decoder: Decoder, folder: Path = CHECKPOINT) -> None:
    """Write model.safetensors in bf16."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.detach().to("cpu", torch.bfloat16).contiguous()
        for name, tensor in original_tensors(tower, decoder).items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def read_weights(folder: Path = CHECKPOINT) -> tuple[VisionTower, Decoder]:
    """The models whose weights `write_weights` wrote, in fp32."""
    config = model_config()
    stored = load_file(folder / "model.safetensors")
    tower, decoder = VisionTower(config), Decoder(config.language)
    tower.load_state_dict({name: stored[name].float() for name in tower.state_dict()})
    weights: dict[str, Tensor] = {}
    for name, tensor in decoder.state_dict().items():
        parts = [
            stored[f"language_model.{key}"] for key in _original(config.language, name, tensor)
        ]
        whole = torch.cat(parts).float()
        is_packed = name.endswith("qkv_proj.weight")
        weights[name] = unpack_wqkv(config.language, whole) if is_packed else whole
    decoder.load_state_dict(weights)
    return tower, decoder


if __name__ == "__main__":
    write_configuration()
