"""config.json: what is read from it, and that every value which vlmc cannot act on is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoint.edit import changed
from tests.miniature.configuration import Tokenizer, configuration
from vlmc.checkpoint.config import (
    ModelConfig,
    VisionConfig,
    parse_config,
    parse_language_config,
    read_config,
)
from vlmc.errors import CheckpointError

PATH = Path("some") / "config.json"
NOT_POSITIVE: tuple[Any, ...] = (0, -1, None, "8", True, [], 2.5)
NOT_NUMBER: tuple[Any, ...] = (0, -1e-6, "1", True, [], float("nan"), float("inf"), 1e39, 10**400)
NOT_BOOLEAN: tuple[Any, ...] = (1, 0, "true", None, [])


def parse(changes: dict[str, Any], tokenizer: Tokenizer = "internlm2") -> ModelConfig:
    return parse_config(changed(configuration(tokenizer, "300m"), changes), PATH)


BAD: list[tuple[str, tuple[Any, ...]]] = [
    ("model_type", ("llava", None, 3, ["internvl_chat"])),
    ("vision_config", (None, [], "x", ...)),
    ("llm_config", (None, [], 3, ...)),
    ("template", (None, 3, ...)),
    ("system_message", (3, [])),
    ("torch_dtype", ("int8", "float64", 3, [])),
    ("force_image_size", (0, 224, 336, 896, "448", True)),
    ("downsample_ratio", (0.25, 1.0, *NOT_NUMBER)),
    ("ps_version", ("v3", 2, None)),
    ("select_layer", (3, -4, 1.0, "-1", True, None)),
    ("pad2square", (True, *NOT_BOOLEAN)),
    ("dynamic_image_size", NOT_BOOLEAN),
    ("use_thumbnail", NOT_BOOLEAN),
    ("min_dynamic_patch", (0, -1, "1", True)),
    ("max_dynamic_patch", (0, -1, "6", True, 1025, 10**9)),
    ("use_backbone_lora", (-1, 1.5, "16", True)),
    ("use_llm_lora", (-1, 1.5, "16", True)),
    ("vision_config.hidden_size", (0, -1, "8", True, 33)),
    ("vision_config.num_hidden_layers", (0, -1, "2")),
    ("vision_config.num_attention_heads", (0, 3, 64)),
    ("vision_config.intermediate_size", (0, 96.0)),
    ("vision_config.hidden_act", ("gelu_new", "relu")),
    ("vision_config.num_channels", (1, 4)),
    ("vision_config.patch_size", (16, 0)),
    ("vision_config.image_size", (0, "448")),
    ("vision_config.norm_type", ("batch_norm", None)),
    ("vision_config.layer_norm_eps", NOT_NUMBER),
    ("vision_config.qk_normalization", NOT_BOOLEAN),
    ("vision_config.qkv_bias", NOT_BOOLEAN),
    ("llm_config.architectures", ([], ["GPT2LMHeadModel"], None, "x", [["LlamaForCausalLM"]], {})),
    ("llm_config.hidden_size", (63, *NOT_POSITIVE)),
    ("llm_config.num_hidden_layers", NOT_POSITIVE),
    ("llm_config.num_attention_heads", (5, 64, 32, *NOT_POSITIVE)),
    ("llm_config.num_key_value_heads", (3, 8, 0, "2")),
    ("llm_config.intermediate_size", NOT_POSITIVE),
    ("llm_config.vocab_size", NOT_POSITIVE),
    ("llm_config.hidden_act", ("gelu", 1)),
    ("llm_config.rms_norm_eps", NOT_NUMBER),
    ("llm_config.rope_theta", NOT_NUMBER),
    ("llm_config.max_position_embeddings", (0, -1, 0.5)),
    ("llm_config.bias", NOT_BOOLEAN),
    ("llm_config.use_sliding_window", (True, *NOT_BOOLEAN)),
    ("llm_config.rope_scaling", ("dynamic", [2.0], 2.0)),
    ("llm_config.rope_scaling.type", ("yarn", None, 2, [])),
    ("llm_config.rope_scaling.factor", (..., None, *NOT_NUMBER)),
    ("quantization_config", ({"quant_method": "awq"},)),
    ("llm_config.quantization_config", ({"quant_method": "gptq"},)),
]
# Checks of one key that are reported under another that does not fit it.
REPORTED = {
    "vision_config.hidden_size": "vision_config.",
    "vision_config.patch_size": "",
    "vision_config.num_attention_heads": "vision_config.num_attention_heads",
    "llm_config.hidden_size": "llm_config.",
}


@pytest.mark.parametrize(
    ("key", "value"),
    [pytest.param(key, value, id=f"{key}-{value!r:.20}") for key, many in BAD for value in many],
)
def test_bad_values_are_refused_by_file_and_key(key: str, value: object) -> None:
    with pytest.raises(CheckpointError) as caught:
        parse({key: value})
    message = str(caught.value)
    assert message.startswith(f"{PATH}: ")
    assert REPORTED.get(key, key) in message
    if key not in REPORTED and not key.endswith(("quantization_config", "max_dynamic_patch")):
        found = None if value is ... else value
        assert f"{key} is {found!r}, expected " in message


FACTORS: list[Any] = [1.0] * 8


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rope_scaling.short_factor", FACTORS[:7]),
        ("rope_scaling.short_factor", [*FACTORS[:7], 0]),
        ("rope_scaling.short_factor", [*FACTORS[:7], "1"]),
        ("rope_scaling.long_factor", [*FACTORS, 1.0]),
        ("rope_scaling.long_factor", [*FACTORS[:7], float("nan")]),
        ("rope_scaling.long_factor", [*FACTORS[:7], -1.0]),
        ("rope_scaling.long_factor", None),
        ("original_max_position_embeddings", 1),
        ("original_max_position_embeddings", "512"),
        ("attention_bias", "no"),
    ],
)
def test_bad_long_rope_is_refused(key: str, value: object) -> None:
    with pytest.raises(CheckpointError, match=rf"llm_config\.{key} is .*, expected"):
        parse({f"llm_config.{key}": value}, "phi3")


def test_fewest_tiles_above_most_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"max_dynamic_patch is 6, .*min_dynamic_patch 7 to"):
        parse({"min_dynamic_patch": 7, "max_dynamic_patch": 6})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as JSON"),
        (b"{", "cannot be read as JSON"),
        (b"\xff\xfe{}", "cannot be read as JSON"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b"[]", "holds list, expected an object"),
        (b"null", "holds NoneType, expected an object"),
    ],
)
def test_files_that_hold_no_object(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_config(tmp_path)
    assert str(tmp_path / "config.json") in str(caught.value)


def test_a_folder_without_config_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        read_config(tmp_path)
    (tmp_path / "config.json").mkdir()
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_config(tmp_path)


LEAST: dict[str, Any] = {
    "architectures": ["InternLM2ForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "intermediate_size": 96,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e6,
    "vocab_size": 600,
}


def test_left_out_keys_take_the_original_classes_defaults() -> None:
    values = {
        "model_type": "internvl_chat",
        "vision_config": {"image_size": 448},
        "llm_config": LEAST,
        "template": "internlm2-chat",
    }
    config = parse_config(values, PATH)
    assert config.vision == VisionConfig(
        hidden_size=3200,
        layers=48,
        heads=25,
        intermediate_size=12800,
        norm="rms_norm",
        qk_norm=True,
        qkv_bias=False,
    )
    assert (config.pixel_shuffle, config.select_layer, config.vision_layers) == ("v1", -1, 48)
    # Dynamic tiling is off by default, which is one tile.
    assert (config.min_tiles, config.max_tiles, config.thumbnail) == (1, 1, False)
    assert (config.dtype, config.system_message) == ("auto", None)
    language = config.language
    assert language.kv_heads == 4
    assert language.rope_scaling.kind == "none"
    # InternLM2's class has biases unless it is told otherwise, Phi-3's and Llama's have none.
    assert language.qkv_bias and language.output_bias
    for architecture, bias in (("Phi3", False), ("Llama", False), ("Qwen2", True)):
        named = {**LEAST, "architectures": [f"{architecture}ForCausalLM"]}
        other = parse_language_config(named, PATH)
        assert (other.qkv_bias, other.output_bias) == (bias, False)


@pytest.mark.parametrize("key", sorted(LEAST.keys() - {"architectures"}))
def test_what_shapes_cannot_confirm_has_no_default(key: str) -> None:
    with pytest.raises(CheckpointError, match=f"^{PATH}: {key} is None, expected "):
        parse_language_config({k: v for k, v in LEAST.items() if k != key}, PATH)


UNKNOWN: list[tuple[str, Any]] = [
    ("residual_scale", 1.4),
    ("llm_config.attention_multiplier", 0),
    ("llm_config.attn_logit_softcapping", 50.0),
    ("llm_config.hidden_act2", "relu"),
    ("llm_config.pruned_heads", {"0": [1]}),
    ("llm_config.mscale", [1.0]),
    ("llm_config.post_norm", True),
    ("llm_config.rope_scaling.beta_fast", 32),
    ("vision_config.use_register_tokens", True),
    ("vision_config.logit_scale", 2.6),
]


@pytest.mark.parametrize(("key", "value"), UNKNOWN)
def test_unknown_keys_that_could_change_the_arithmetic_are_refused(key: str, value: object) -> None:
    with pytest.raises(CheckpointError, match=rf"{key} is .*, a key that vlmc does not know"):
        parse({key: value})


def test_what_is_switched_off_or_private_is_no_unknown_key() -> None:
    off = {"post_norm": False, "moe_config": None, "pruned_heads": {}, "_attn_implementation": "x"}
    changes = {f"llm_config.{key}": value for key, value in off.items()}
    experts = {"vision_config.use_moe": False, "vision_config.num_experts": 8}
    assert parse(changes | experts) == parse({})
    with pytest.raises(CheckpointError, match=r"vision_config\.use_moe is True, expected false"):
        parse({"vision_config.use_moe": True})


ATTENTION: list[tuple[Tokenizer, str, Any]] = [
    ("phi3", "sliding_window", 2047),
    ("phi3", "sliding_window", True),
    ("phi3", "layer_types", ["full_attention"]),
    ("phi3", "layer_types", ["full_attention", "linear_attention"]),
    ("qwen2", "layer_types", ["full_attention", "sliding_attention"]),
    ("yi", "head_dim", 32),
    ("yi", "mlp_bias", True),
    ("yi", "partial_rotary_factor", 0.5),
]


@pytest.mark.parametrize(("tokenizer", "key", "value"), ATTENTION)
def test_attention_that_is_not_the_familys_is_refused(
    tokenizer: Tokenizer, key: str, value: object
) -> None:
    with pytest.raises(CheckpointError, match=rf"llm_config\.{key} is .*, expected"):
        parse({f"llm_config.{key}": value}, tokenizer)


def test_dtype_has_two_names_that_must_agree() -> None:
    assert parse({"torch_dtype": ..., "dtype": "float16"}).dtype == "float16"
    assert parse({"torch_dtype": ..., "llm_config.torch_dtype": "float16"}).dtype == "float16"
    assert parse({"dtype": "bfloat16"}).dtype == "bfloat16"
    with pytest.raises(CheckpointError, match=r"torch_dtype is 'bfloat16', but dtype is 'float16'"):
        parse({"dtype": "float16"})


def test_text_config_is_another_name_of_llm_config() -> None:
    language = configuration("internlm2", "300m")["llm_config"]
    assert parse({"llm_config": ..., "text_config": language}) == parse({})
    assert parse({"text_config": language}) == parse({})
    with pytest.raises(CheckpointError, match=r"llm_config is .* but text_config is "):
        parse({"text_config": {**language, "rms_norm_eps": 1e-6}})
    with pytest.raises(CheckpointError, match="transformers' own conversion"):
        parse({"model_type": "internvl"})


def test_values_are_read() -> None:
    config = parse(
        {
            "select_layer": -2,
            "ps_version": "v1",
            "min_dynamic_patch": 2,
            "max_dynamic_patch": 9,
            "use_thumbnail": False,
            "torch_dtype": "float16",
            "system_message": "Be brief.",
            "use_backbone_lora": 16,
            "use_llm_lora": 8,
            "vision_config.image_size": 224,
            "vision_config.layer_norm_eps": 1e-5,
            "llm_config.rope_scaling": {"type": "linear", "factor": 4},
        }
    )
    assert (config.vision_layers, config.pixel_shuffle) == (1, "v1")
    assert (config.min_tiles, config.max_tiles, config.thumbnail) == (2, 9, False)
    assert (config.dtype, config.system_message) == ("float16", "Be brief.")
    assert (config.vision_lora_rank, config.language_lora_rank) == (16, 8)
    assert (config.vision.positions, config.vision.grid, config.vision.norm_eps) == (257, 32, 1e-5)
    assert (config.language.rope_scaling.kind, config.language.rope_scaling.factor) == ("linear", 4)


def test_long_rope_is_read_under_its_old_and_new_name() -> None:
    old = parse({}, "phi3").language.rope_scaling
    assert old.kind == "longrope"
    assert old.original_positions == 512
    assert (len(old.short_factor), old.long_factor[-1]) == (8, 24.5)
    assert parse({"llm_config.rope_scaling.type": "longrope"}, "phi3").language.rope_scaling == old
    plain = parse({"llm_config.rope_scaling": {"rope_type": "default"}}).language.rope_scaling
    assert plain.kind == "none"


SPLIT: list[tuple[dict[str, Any], str]] = [
    ({"rope_parameters": {"rope_theta": 1e4}}, r"rope_theta is 1000000, but .*rope_theta is 10000"),
    ({"rope_parameters": {"rope_type": "linear", "factor": 2.0}}, r"type is 'dynamic', but its"),
    ({"rope_parameters": {"factor": 3.0}}, r"rope_scaling\.factor is 2\.0, but .*factor is 3"),
    (
        {"rope_scaling": {"type": "linear", "rope_type": "dynamic", "factor": 2.0}},
        "type is 'linear'",
    ),
    ({"rope_scaling.original_max_position_embeddings": 4096}, "is 4096, expected 32768"),
    ({"rope_scaling": None, "rope_theta": ...}, "rope_theta is None, expected"),
    (
        {"rope_parameters": {"full_attention": {"rope_type": "dynamic"}}},
        "full_attention is .* know",
    ),
    ({"rope_scaling.rope_type": "llama3"}, "rope_type is 'llama3', expected one of"),
]


@pytest.mark.parametrize(("changes", "message"), SPLIT)
def test_rope_that_is_said_in_two_ways_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        parse({f"llm_config.{key}": value for key, value in changes.items()})


LONG: list[tuple[dict[str, Any], str]] = [
    ({"original_max_position_embeddings": ...}, "original_max_position_embeddings is None"),
    ({"rope_scaling.original_max_position_embeddings": 4096}, "is 512, but .* is 4096"),
    ({"rope_scaling.factor": 8.0}, r"factor is 8\.0, expected 32"),
    ({"rope_scaling.attention_factor": 1.0}, r"attention_factor is 1\.0, expected 1\.247219"),
]


@pytest.mark.parametrize(("changes", "message"), LONG)
def test_long_rope_that_is_said_in_two_ways_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        parse({f"llm_config.{key}": value for key, value in changes.items()}, "phi3")


def test_released_files_with_nulls_are_read(tmp_path: Path) -> None:
    values = changed(
        configuration("qwen2", "300m"),
        {"force_image_size": None, "system_message": None, "quantization_config": None},
    )
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert read_config(tmp_path).system_message is None
