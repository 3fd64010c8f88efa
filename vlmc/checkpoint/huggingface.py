"""The language model in Hugging Face's layout, which artifacts use and other engines read.

InternLM2 becomes Llama (INTERNVL2 reference, 3.3); Qwen2, Phi-3 and Llama have that layout already.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vlmc.checkpoint.config import LanguageConfig, ModelConfig
from vlmc.checkpoint.layout import has_bias, language_linears, quantized_linears
from vlmc.checkpoint.quantization import Quantization
from vlmc.checkpoint.quantized import is_quantized, read_quantized
from vlmc.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

    from vlmc.checkpoint.weights import Weights

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head"
_PREFIX = "language_model."
_QKV = ("q_proj", "k_proj", "v_proj")
_INTERNLM2_NAMES = {
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w3": "mlp.up_proj",
    "feed_forward.w2": "mlp.down_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def language_tensors(
    weights: Weights,
    config: LanguageConfig,
    within: str = "",
    *,
    quantization: Quantization | None = None,
) -> Iterator[tuple[str, Tensor]]:
    """The language model's tensors under Hugging Face names, one at a time, mapped not copied.

    Args:
        within: a prefix of original names, such as `model.layers.0.` for one layer; only tensors
            under it are returned.
        quantization: the checkpoint's, whose linears come one by one in compressed-tensors' layout
            with the same integers; `stored_quantization` describes them.

    Raises:
        CheckpointError: a quantized linear cannot be read; the message names it and its file.
    """
    taken: set[str] = set()
    for name in weights:
        if not name.startswith(_PREFIX + within) or name.endswith("rotary_emb.inv_freq"):
            continue
        linear = name.rpartition(".")[0]
        if linear in taken:
            continue
        plain = name.removeprefix(_PREFIX)
        if quantization is not None and is_quantized(weights, linear, quantization):
            taken.add(linear)
            yield from _quantized(weights, linear, config, quantization)
        elif config.architecture == "InternLM2ForCausalLM":
            yield from _from_internlm2(plain, weights.tensor(name), config)
        else:
            yield plain, weights.tensor(name)


def _from_internlm2(
    name: str, tensor: Tensor, config: LanguageConfig
) -> Iterator[tuple[str, Tensor]]:
    if name == "model.tok_embeddings.weight":
        yield EMBEDDING, tensor
    elif name == "output.weight":
        yield "lm_head.weight", tensor
    elif ".attention.wqkv." in name:
        layer, kind = name.split(".attention.wqkv.")
        # Rows: for each key head its query heads, the key, the value.
        packed = tensor.view(config.kv_heads, -1, config.head_dim, *tensor.shape[1:])
        yield f"{layer}.self_attn.q_proj.{kind}", packed[:, :-2].flatten(0, 2)
        yield f"{layer}.self_attn.k_proj.{kind}", packed[:, -2].flatten(0, 1)
        yield f"{layer}.self_attn.v_proj.{kind}", packed[:, -1].flatten(0, 1)
    else:
        for old, new in _INTERNLM2_NAMES.items():
            name = name.replace(old, new)
        yield name, tensor


def stored_quantization(weights: Weights, config: ModelConfig) -> Quantization | None:
    """How the tensors from `language_tensors` are quantized; None for a 16-bit checkpoint."""
    found = config.quantization
    if found is None:
        return None
    dense = language_linears(config.language).keys() - quantized_linears(weights, config).keys()
    kept = [name for linear in sorted(dense) for name in _linear_names(linear)]
    return Quantization(found.scheme, found.group_size, found.symmetric, ("Linear",), (HEAD, *kept))


def _quantized(
    weights: Weights, linear: str, config: LanguageConfig, quantization: Quantization
) -> Iterator[tuple[str, Tensor]]:
    from vlmc.checkpoint.packed import split_internlm2

    tensors = read_quantized(weights, linear, quantization)
    spare = None if has_bias(config, linear) else tensors.pop("bias", None)
    if spare is not None and spare.any():
        raise CheckpointError(
            f"{weights.file(f'{linear}.bias')}: {linear}.bias is not all zero, and the model of "
            "config.json has no bias there. The weights belong to another model."
        )
    names = _linear_names(linear)
    parts = [tensors]
    if len(names) > 1:
        parts = list(split_internlm2(tensors, config.kv_heads, config.head_dim).values())
    for name, part in zip(names, parts, strict=True):
        yield from ((f"{name}.{kind}", tensor) for kind, tensor in part.items())


def _linear_names(linear: str) -> list[str]:
    """Hugging Face's name of an original linear, or of its parts."""
    name = linear.removeprefix(_PREFIX)
    if name.endswith(".attention.wqkv"):
        layer = name.removesuffix(".attention.wqkv")
        return [f"{layer}.self_attn.{part}" for part in _QKV]
    for old, new in _INTERNLM2_NAMES.items():
        name = name.replace(old, new)
    return [name]


def language_config_json(
    config: LanguageConfig, *, dtype: str, bos_id: int | None, eos_id: int, pad_id: int | None
) -> dict[str, Any]:
    """A `config.json` from which transformers, vLLM and vlmc's own runtime build the model."""
    internlm2 = config.architecture == "InternLM2ForCausalLM"
    architecture = "LlamaForCausalLM" if internlm2 else config.architecture
    values: dict[str, Any] = {
        "architectures": [architecture],
        "model_type": {"LlamaForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2"}.get(
            architecture, "phi3"
        ),
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.intermediate_size,
        "vocab_size": config.vocab_size,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": _rope_scaling_json(config),
        "max_position_embeddings": config.max_positions,
        "tie_word_embeddings": False,
        "bos_token_id": bos_id,
        "eos_token_id": eos_id,
        "pad_token_id": pad_id,
        "torch_dtype": dtype,
        "use_cache": True,
    }
    if architecture == "LlamaForCausalLM":
        values |= {"attention_bias": config.qkv_bias, "mlp_bias": False}
    if config.rope_scaling.kind == "longrope":
        values["original_max_position_embeddings"] = config.rope_scaling.original_positions
    return values


def _rope_scaling_json(config: LanguageConfig) -> dict[str, Any] | None:
    scaling = config.rope_scaling
    if scaling.kind == "none":
        return None
    if scaling.kind == "longrope":
        return {
            "type": "longrope",
            "rope_type": "longrope",
            "short_factor": list(scaling.short_factor),
            "long_factor": list(scaling.long_factor),
        }
    return {"type": scaling.kind, "rope_type": scaling.kind, "factor": scaling.factor}


def tower_tensors(weights: Weights, config: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    """Tensors of the tower and projector that `select_layer` needs, under their original names."""
    for name in weights:
        if not name.startswith(("vision_model.", "mlp1.")) or name.endswith("position_ids"):
            continue
        parts = name.split(".")
        if parts[1:3] == ["encoder", "layers"] and int(parts[3]) >= config.vision_layers:
            continue
        yield name, weights.tensor(name)
