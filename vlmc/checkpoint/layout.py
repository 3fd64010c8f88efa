"""Names and shapes that an original InternVL2 checkpoint of a given configuration must hold."""

from __future__ import annotations

from collections.abc import Iterator

from vlmc.checkpoint.config import LanguageConfig, ModelConfig, VisionConfig
from vlmc.checkpoint.weights import Weights
from vlmc.errors import CheckpointError

Shapes = dict[str, tuple[int, ...]]
# Buffers that older exports saved; they are computed from the configuration.
_IGNORED = ("rotary_emb.inv_freq", "position_ids")
_FLOAT_DTYPES = ("BF16", "F16", "F32")


def check_layout(weights: Weights, config: ModelConfig) -> None:
    """Compare a checkpoint's headers with its configuration.

    Raises:
        CheckpointError: tensors are missing, unknown, or of another shape or dtype; the message
            names tensor, file, found and expected.
    """
    expected = original_shapes(config)
    missing = sorted(name for name in expected if name not in weights)
    if missing:
        raise CheckpointError(
            f"{weights.folder} lacks {len(missing)} of the {len(expected)} tensors that its "
            f"config.json asks for, first {missing[0]}. The download is incomplete, or the "
            "config.json belongs to another model."
        )
    unknown = sorted(
        name for name in weights if name not in expected and not name.endswith(_IGNORED)
    )
    if unknown:
        raise CheckpointError(
            f"{weights.file(unknown[0])} holds {unknown[0]}, which an InternVL2 model with this "
            f"config.json does not have ({len(unknown)} such tensors). Layer counts, qkv_bias or "
            "qk_normalization in config.json do not agree with the weights."
        )
    for name, shape in expected.items():
        if weights.shape(name) != shape:
            raise CheckpointError(
                f"{weights.file(name)}: {name} has shape {list(weights.shape(name))}, expected "
                f"{list(shape)} by config.json{_hint(name, config)}"
            )
        others = sorted(weights.dtypes(name).difference(_FLOAT_DTYPES))
        if others:
            raise CheckpointError(
                f"{weights.file(name)}: {name} is {others[0]}, expected one of "
                f"{', '.join(_FLOAT_DTYPES)}. Quantized checkpoints are not supported by this "
                "version; start from the original weights."
            )
    _check_lora(weights, config)


def original_shapes(config: ModelConfig) -> Shapes:
    """Every tensor of the original layout, by name."""
    return (
        dict(_vision(config.vision)) | dict(_projector(config)) | dict(_language(config.language))
    )


def _vision(config: VisionConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, inner = config.hidden_size, config.intermediate_size
    embeddings = "vision_model.embeddings."
    yield embeddings + "class_embedding", (1, 1, hidden)
    yield embeddings + "position_embedding", (1, config.positions, hidden)
    yield embeddings + "patch_embedding.weight", (hidden, 3, config.patch_size, config.patch_size)
    yield embeddings + "patch_embedding.bias", (hidden,)
    for index in range(config.layers):
        block = f"vision_model.encoder.layers.{index}."
        for norm in ("norm1", "norm2"):
            yield f"{block}{norm}.weight", (hidden,)
            if config.norm == "layer_norm":
                yield f"{block}{norm}.bias", (hidden,)
        yield block + "attn.qkv.weight", (3 * hidden, hidden)
        if config.qkv_bias:
            yield block + "attn.qkv.bias", (3 * hidden,)
        if config.qk_norm:
            yield block + "attn.q_norm.weight", (hidden,)
            yield block + "attn.k_norm.weight", (hidden,)
        yield block + "attn.proj.weight", (hidden, hidden)
        yield block + "attn.proj.bias", (hidden,)
        yield block + "ls1", (hidden,)
        yield block + "ls2", (hidden,)
        yield block + "mlp.fc1.weight", (inner, hidden)
        yield block + "mlp.fc1.bias", (inner,)
        yield block + "mlp.fc2.weight", (hidden, inner)
        yield block + "mlp.fc2.bias", (hidden,)


def _projector(config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    shuffled, hidden = 4 * config.vision.hidden_size, config.language.hidden_size
    yield "mlp1.0.weight", (shuffled,)
    yield "mlp1.0.bias", (shuffled,)
    yield "mlp1.1.weight", (hidden, shuffled)
    yield "mlp1.1.bias", (hidden,)
    yield "mlp1.3.weight", (hidden, hidden)
    yield "mlp1.3.bias", (hidden,)


def _language(config: LanguageConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    internlm2 = config.architecture == "InternLM2ForCausalLM"
    hidden, table = config.hidden_size, (config.vocab_size, config.hidden_size)
    yield f"language_model.model.{'tok_embeddings' if internlm2 else 'embed_tokens'}.weight", table
    for index in range(config.layers):
        layer = f"language_model.model.layers.{index}."
        norms = (
            ("attention_norm", "ffn_norm")
            if internlm2
            else (
                "input_layernorm",
                "post_attention_layernorm",
            )
        )
        for norm in norms:
            yield f"{layer}{norm}.weight", (hidden,)
        for name, shape, bias in _projections(config):
            yield f"{layer}{name}.weight", shape
            if bias:
                yield f"{layer}{name}.bias", shape[:1]
    yield "language_model.model.norm.weight", (hidden,)
    yield f"language_model.{'output' if internlm2 else 'lm_head'}.weight", table


def _projections(config: LanguageConfig) -> Iterator[tuple[str, tuple[int, int], bool]]:
    hidden, inner = config.hidden_size, config.intermediate_size
    query, value = config.heads * config.head_dim, config.kv_heads * config.head_dim
    qkv_bias, output_bias = config.qkv_bias, config.output_bias
    if config.architecture == "InternLM2ForCausalLM":
        yield "attention.wqkv", (query + 2 * value, hidden), qkv_bias
        yield "attention.wo", (hidden, query), output_bias
        yield "feed_forward.w1", (inner, hidden), False
        yield "feed_forward.w3", (inner, hidden), False
        yield "feed_forward.w2", (hidden, inner), False
    elif config.architecture == "Phi3ForCausalLM":
        yield "self_attn.qkv_proj", (query + 2 * value, hidden), qkv_bias
        yield "self_attn.o_proj", (hidden, query), output_bias
        yield "mlp.gate_up_proj", (2 * inner, hidden), False
        yield "mlp.down_proj", (hidden, inner), False
    else:
        yield "self_attn.q_proj", (query, hidden), qkv_bias
        yield "self_attn.k_proj", (value, hidden), qkv_bias
        yield "self_attn.v_proj", (value, hidden), qkv_bias
        yield "self_attn.o_proj", (hidden, query), output_bias
        yield "mlp.gate_proj", (inner, hidden), False
        yield "mlp.up_proj", (inner, hidden), False
        yield "mlp.down_proj", (hidden, inner), False


def _hint(name: str, config: ModelConfig) -> str:
    if name.endswith(
        ("tok_embeddings.weight", "embed_tokens.weight", "output.weight", "lm_head.weight")
    ):
        return (
            f" (vocab_size {config.language.vocab_size}). Embedding and head must both have as "
            "many rows as the tokenizer has tokens; the config.json or a shard is of another model."
        )
    return ". The config.json belongs to another model, or the file is damaged."


def _check_lora(weights: Weights, config: ModelConfig) -> None:
    for prefix, key, rank in (
        ("vision_model.", "use_backbone_lora", config.vision_lora_rank),
        ("language_model.", "use_llm_lora", config.language_lora_rank),
    ):
        ranks = weights.lora_ranks(prefix)
        if ranks and ranks != {rank}:
            raise CheckpointError(
                f"{weights.folder} holds LoRA pairs of rank {sorted(ranks)} under {prefix}*, but "
                f"its config.json says {key} {rank}. Without the right rank the scale of the "
                "merge is unknown; set the key to the rank that was trained."
            )
