"""Names and shapes that an original InternVL2 checkpoint of a given configuration must hold."""

from __future__ import annotations

from collections.abc import Iterator

from vlmc.checkpoint.config import LanguageConfig, ModelConfig, VisionConfig
from vlmc.checkpoint.quantized import (
    FLOAT_DTYPES,
    WORD_KINDS,
    Expected,
    compressed_bytes,
    expected_parts,
    is_quantized,
)
from vlmc.checkpoint.weights import Weights
from vlmc.errors import CheckpointError

Shapes = dict[str, tuple[int, ...]]
# Buffers that older exports saved; they are computed from the configuration.
_IGNORED = ("rotary_emb.inv_freq", "position_ids")


def check_layout(weights: Weights, config: ModelConfig) -> None:
    """Compare a checkpoint's headers with its configuration.

    Raises:
        CheckpointError: tensors are missing, unknown, or of another shape or dtype; the message
            names tensor, file, found and expected.
    """
    _tie_head(weights, config)
    expected = _expected(weights, config)
    missing = sorted(name for name in expected if name not in weights)
    if missing:
        raise CheckpointError(
            f"{weights.folder} lacks {len(missing)} of the {len(expected)} tensors that its "
            f"config.json describes, first {missing[0]}. The download is incomplete, or the "
            f"config.json belongs to another model.{_missing_quantization(weights, config)}"
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
    for name, (shape, dtypes) in expected.items():
        if weights.shape(name) != shape:
            raise CheckpointError(
                f"{weights.file(name)}: {name} has shape {list(weights.shape(name))}, expected "
                f"{list(shape)} by config.json{_hint(name, config)}"
            )
        others = sorted(weights.dtypes(name).difference(dtypes))
        if others:
            raise CheckpointError(
                f"{weights.file(name)}: {name} is {others[0]}, expected "
                f"{'one of ' if len(dtypes) > 1 else ''}{', '.join(dtypes)}. Only linears of the "
                "language model's layers may be quantized, in the layout that config.json's "
                "quantization_config names. Otherwise start from the original weights."
            )
    _check_lora(weights, config)


def _tie_head(weights: Weights, config: ModelConfig) -> None:
    """Give a tied model its head, which training tools leave out of the files.

    Raises:
        CheckpointError: config.json and the files contradict each other about it.
    """
    internlm2 = config.language.architecture == "InternLM2ForCausalLM"
    table = f"language_model.model.{'tok_embeddings' if internlm2 else 'embed_tokens'}.weight"
    head = f"language_model.{'output' if internlm2 else 'lm_head'}.weight"
    if table not in weights:
        return
    if head not in weights:
        if not config.tied_head:
            raise CheckpointError(
                f"{weights.folder} lacks {head}, and its config.json does not say that the head is "
                f"the embedding (tie_word_embeddings true). Either {head} was not saved, or the "
                "key is wrong. If the model was trained with a tied head, set "
                "llm_config.tie_word_embeddings to true; else save the model again."
            )
        weights.tie(head, table)
    elif config.tied_head and not weights.equal(head, table):
        raise CheckpointError(
            f"{weights.folder}: config.json says tie_word_embeddings true, that is a head which is "
            f"the embedding, but {head} and {table} differ. Which one the model was trained with "
            "cannot be known: set the key to false to use the stored head, or remove that tensor."
        )


def original_shapes(config: ModelConfig) -> Shapes:
    """Every tensor of the original layout, by name."""
    return (
        dict(_vision(config.vision)) | dict(_projector(config)) | dict(_language(config.language))
    )


def language_linears(config: LanguageConfig) -> dict[str, tuple[int, int]]:
    """Outputs and inputs of every linear of the layers, by its whole original name."""
    return {
        f"language_model.model.layers.{index}.{name}": shape
        for index in range(config.layers)
        for name, shape, _ in _projections(config)
    }


def has_bias(config: LanguageConfig, linear: str) -> bool:
    """Whether the model has a bias there, by one of `language_linears`' names."""
    return any(bias and linear.endswith(f".{name}") for name, _, bias in _projections(config))


def quantized_linears(weights: Weights, config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Those of `language_linears` that the files hold quantized."""
    quantization = config.quantization
    if quantization is None:
        return {}
    return {
        linear: shape
        for linear, shape in language_linears(config.language).items()
        if is_quantized(weights, linear, quantization)
    }


def quantized_bytes(weights: Weights, config: ModelConfig) -> int:
    """Size of those linears in the layout of an artifact, from the headers."""
    if config.quantization is None:
        return 0
    return sum(
        compressed_bytes(weights, linear, config.quantization)
        for linear in quantized_linears(weights, config)
    )


def _expected(weights: Weights, config: ModelConfig) -> dict[str, Expected]:
    """Shape and dtypes of every tensor that the files must hold. A quantized linear's tensors
    replace its weight."""
    expected: dict[str, Expected] = {
        name: (shape, FLOAT_DTYPES) for name, shape in original_shapes(config).items()
    }
    quantized, language = quantized_linears(weights, config), config.language
    if config.quantization is None:
        return expected
    if not quantized:
        raise CheckpointError(
            f"{weights.folder}: quantization_config in config.json says "
            f"{config.quantization.layout}, but the files hold no linear of the language model's "
            "layers in that layout. Download the model again, or remove the key if its weights are "
            "in 16 bits."
        )
    for linear, shape in quantized.items():
        del expected[f"{linear}.weight"]
        # InternLM2's queries, keys and values part when an artifact is made.
        parted = linear.endswith(".wqkv")
        unit = language.kv_heads * language.head_dim if parted else shape[0]
        expected |= expected_parts(weights, linear, config.quantization, shape, unit)
        if f"{linear}.bias" in weights:
            # AutoGPTQ writes one of zeros where the model has none.
            expected[f"{linear}.bias"] = (shape[:1], FLOAT_DTYPES)
    return expected


def _missing_quantization(weights: Weights, config: ModelConfig) -> str:
    """What to do if the files hold quantized linears and config.json does not say so."""
    words = [name for name in weights if name.endswith(WORD_KINDS)]
    if not words or config.quantization is not None:
        return ""
    return (
        f" The files hold {words[0]}, a quantized linear, and config.json has no "
        "quantization_config: put the settings of its quantization there (as llm_config's)."
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
            f" (vocab_size {config.language.vocab_size}). Embedding and head must both have at "
            "least as many rows as the tokenizer has tokens; the config.json or a shard belongs to "
            "another model."
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
