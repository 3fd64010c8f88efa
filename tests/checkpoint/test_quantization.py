"""Settings of quantized checkpoints: what is read, and what is refused by name."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from vlmc.checkpoint.quantization import Quantization, find_quantization
from vlmc.errors import CheckpointError

CONFIG = Path("model/config.json")
W4A16: dict[str, Any] = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "quantization_status": "compressed",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "input_activations": None,
            "output_activations": None,
            "weights": {
                "num_bits": 4,
                "type": "int",
                "symmetric": False,
                "strategy": "group",
                "group_size": 128,
                "actorder": None,
            },
        }
    },
    "ignore": ["lm_head", r"re:.*layers\.1\.mlp"],
}
FP8: dict[str, Any] = {
    "quant_method": "compressed-tensors",
    "quantization_status": "compressed",
    "config_groups": {
        "group_0": {
            "format": "float-quantized",
            "targets": ["re:.*proj$"],
            "weights": {"num_bits": 8, "type": "float", "strategy": "channel"},
            "input_activations": {
                "num_bits": 8,
                "type": "float",
                "strategy": "token",
                "dynamic": True,
            },
        }
    },
}
AWQ: dict[str, Any] = {
    "quant_method": "awq",
    "version": "gemm",
    "bits": 4,
    "group_size": 128,
    "zero_point": True,
    "modules_to_not_convert": ["layers.0.mlp"],
}
GPTQ: dict[str, Any] = {
    "quant_method": "gptq",
    "bits": 4,
    "group_size": -1,
    "sym": True,
    "desc_act": False,
    "checkpoint_format": "gptq_v2",
}


def find(settings: object, place: str | None = None) -> Quantization | None:
    values = {"quantization_config": settings}
    return find_quantization(values if place is None else {place: values}, CONFIG)


def test_a_plain_checkpoint_says_nothing() -> None:
    assert find_quantization({"llm_config": {"hidden_size": 1}}, CONFIG) is None
    assert find(None) is None


@pytest.mark.parametrize("place", [None, "llm_config", "text_config"])
def test_it_is_found_where_writers_place_it(place: str | None) -> None:
    found = find(W4A16, place)
    assert found is not None
    assert (found.layout, found.group_size, found.symmetric) == ("w4a16", 128, False)


def test_compressed_tensors_scope() -> None:
    found = find(W4A16)
    assert found is not None
    assert found.covers("model.layers.0.mlp.up_proj")
    assert not found.covers("model.layers.1.mlp.up_proj")
    assert found.covers("model.layers.1.self_attn.q_proj")
    assert not found.covers("lm_head")
    fp8 = find(FP8)
    assert fp8 is not None
    assert (fp8.layout, fp8.group_size, fp8.symmetric) == ("fp8", None, True)
    assert fp8.covers("model.layers.0.mlp.up_proj")
    assert not fp8.covers("lm_head")


def test_awq_and_gptq() -> None:
    awq, gptq = find(AWQ), find(GPTQ)
    assert awq is not None
    assert gptq is not None
    assert (awq.layout, awq.group_size, awq.symmetric) == ("awq", 128, False)
    assert awq.covers("model.layers.1.feed_forward.w1")
    assert not awq.covers("model.layers.0.mlp.up_proj")
    assert not awq.covers("output")
    assert (gptq.layout, gptq.group_size, gptq.symmetric) == ("gptq_v2", None, True)
    plain = {name: value for name, value in GPTQ.items() if name != "checkpoint_format"}
    assert find(plain) == Quantization("gptq", None, True, gptq.targets)
    old = {"quant_method": "awq", "version": "GEMM", "w_bit": 4, "q_group_size": 64}
    assert find(old | {"zero_point": True}) == Quantization("awq", 64, False, gptq.targets)


@pytest.mark.parametrize(
    ("settings", "key", "value", "message"),
    [
        (AWQ, "quant_method", "bitsandbytes", "quant_method is 'bitsandbytes'"),
        (AWQ, "version", "gemv", "version is 'gemv'"),
        (AWQ, "bits", 8, "bits is 8"),
        (AWQ, "group_size", 20, "group_size is 20"),
        (AWQ, "group_size", True, "group_size is True"),
        (AWQ, "zero_point", False, "zero_point is False"),
        (GPTQ, "checkpoint_format", "marlin", "checkpoint_format is 'marlin'"),
        (GPTQ, "checkpoint_format", "gptq_p", "checkpoint_format is 'gptq_p'"),
        (GPTQ, "is_marlin_format", True, "is_marlin_format is True"),
        (GPTQ, "bits", 3, "bits is 3"),
        (GPTQ, "dynamic", {"-:x": {}, "+:y": {"bits": 8}}, "dynamic is"),
        (GPTQ, "dynamic", {"-:(": {}}, "valid patterns"),
        (GPTQ, "lm_head", True, "lm_head is True"),
        (W4A16, "format", "marlin-24", "format is 'marlin-24'"),
        (W4A16, "quantization_status", "frozen", "quantization_status is 'frozen'"),
        (W4A16, "kv_cache_scheme", {"num_bits": 8}, "kv_cache_scheme is"),
        (W4A16, "sparsity_config", {"format": "sparse-24"}, "sparsity_config is"),
        (W4A16, "ignore", ["re:("], "valid patterns"),
        (W4A16, "ignore", "lm_head", "a list of names"),
        (W4A16, "config_groups.group_1", {}, "exactly one group"),
        (W4A16, "config_groups.group_0.weights", None, "group_0.weights is None"),
        (W4A16, "config_groups.group_0.weights.num_bits", 8, "weights.num_bits is 8"),
        (W4A16, "config_groups.group_0.weights.strategy", "block", "strategy is 'block'"),
        (W4A16, "config_groups.group_0.weights.actorder", "group", "actorder is 'group'"),
        (W4A16, "config_groups.group_0.weights.group_size", None, "group_size is None"),
        (W4A16, "config_groups.group_0.input_activations", {"num_bits": 8}, "16 bits"),
        (FP8, "config_groups.group_0.weights.strategy", "tensor", "strategy is 'tensor'"),
        (FP8, "config_groups.group_0.input_activations", None, "input_activations is None"),
        (FP8, "config_groups.group_0.input_activations.dynamic", False, "dynamic is False"),
    ],
)
def test_what_is_not_read_is_refused(
    settings: dict[str, Any], key: str, value: object, message: str
) -> None:
    changed = copy.deepcopy(settings)
    target = changed
    *above, last = key.split(".")
    for name in above:
        target = target[name]
    target[last] = value
    with pytest.raises(CheckpointError, match=rf"model/config\.json: llm_config\..*{message}"):
        find(changed, "llm_config")


def test_what_is_no_object_is_refused() -> None:
    with pytest.raises(CheckpointError, match="quantization_config is 'awq', expected an object"):
        find("awq")
