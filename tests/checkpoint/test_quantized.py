"""Checkpoints that are quantized already: the same integers in an artifact's layout, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.checkpoint.edit import SINGLE, edit_config, edit_tensors, load, write_tensors
from tests.miniature import write_checkpoint
from tests.miniature.quantized import (
    LANGUAGE_FILE,
    LAYOUTS,
    Layout,
    write_dequantized,
    write_quantized,
)
from tests.quantized import dequantized
from vlmc.checkpoint.convert import convert
from vlmc.checkpoint.huggingface import language_tensors, stored_quantization
from vlmc.checkpoint.quantization import Quantization
from vlmc.checkpoint.source import open_checkpoint
from vlmc.errors import CheckpointError

Folder = Callable[[str], Path]
INTEGERS = tuple(layout for layout in LAYOUTS if layout != "float-quantized")
OTHERS = ("qwen2-300m", "phi3-300m", "llama-yi-6b", "llama-llama3-6b")
LAYER = "language_model.model.layers.0."
WO = f"{LAYER}attention.wo"


def read(folder: Path) -> tuple[dict[str, Tensor], Quantization | None]:
    """Copies of the language model's tensors, and how they are quantized."""
    with open_checkpoint(folder) as opened:
        config = opened.config
        tensors = language_tensors(
            opened.weights, config.language, quantization=config.quantization
        )
        found = {name: tensor.clone() for name, tensor in tensors}
        return found, stored_quantization(opened.weights, config)


def same_values(found: dict[str, Tensor], dense: dict[str, Tensor]) -> None:
    whole = dequantized(found)
    assert whole.keys() == dense.keys()
    for name, tensor in dense.items():
        assert torch.equal(whole[name], tensor.float()), name


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("layout", INTEGERS)
def test_internlm2_in_every_layout(
    layout: Layout, symmetric: bool, miniature: Path, tmp_path: Path
) -> None:
    """Rows of queries, keys and values part as those of a 16-bit checkpoint."""
    made = write_quantized(miniature, tmp_path / "made", layout, symmetric=symmetric)
    dense = write_dequantized(miniature, tmp_path / "dense", symmetric=symmetric)
    found, quantization = read(made)
    same_values(found, read(dense)[0])
    # AWQ has zero points in any case.
    plain = symmetric and layout != "awq"
    assert quantization == Quantization("w4a16", 32, plain, ("Linear",), ("lm_head",))
    name = "model.layers.0.self_attn.k_proj"
    assert (f"{name}.weight_zero_point" in found) != plain
    assert found[f"{name}.weight_scale"].dtype == torch.float16
    assert found[f"{name}.weight_shape"].tolist() == [32, 64]


@pytest.mark.parametrize("layout", ["awq", "gptq", "pack-quantized"])
@pytest.mark.parametrize("name", OTHERS)
def test_other_language_models(
    name: str, layout: Layout, miniatures: Folder, tmp_path: Path
) -> None:
    made = write_quantized(miniatures(name), tmp_path / "made", layout, place="")
    same_values(read(made)[0], read(write_dequantized(miniatures(name), tmp_path / "dense"))[0])


@pytest.mark.parametrize("name", ["internlm2-300m", "qwen2-300m"])
def test_fp8_stays_as_it_is(name: str, miniatures: Folder, tmp_path: Path) -> None:
    made = write_quantized(miniatures(name), tmp_path / "made", "float-quantized")
    found, quantization = read(made)
    assert quantization == Quantization("fp8", None, True, ("Linear",), ("lm_head",))
    held = load(made / LANGUAGE_FILE)
    if name == "qwen2-300m":
        expected = held[f"{LAYER}self_attn.k_proj.weight"]
    else:  # a key head's rows follow those of its two query heads
        rows = held[f"{LAYER}attention.wqkv.weight"].view(torch.uint8)
        expected = rows.view(2, 4, 16, 64)[:, 2].flatten(0, 1).view(torch.float8_e4m3fn)
    assert bits_equal(found["model.layers.0.self_attn.k_proj.weight"], expected)
    down = f"{LAYER}mlp.down_proj" if name == "qwen2-300m" else f"{LAYER}feed_forward.w2"
    for kind in ("weight", "weight_scale"):
        assert bits_equal(found[f"model.layers.0.mlp.down_proj.{kind}"], held[f"{down}.{kind}"])


def bits_equal(found: Tensor, expected: Tensor) -> bool:
    assert found.dtype == expected.dtype and found.shape == expected.shape
    return torch.equal(
        found.contiguous().view(torch.uint8), expected.contiguous().view(torch.uint8)
    )


def test_linears_left_in_16_bits(miniature: Path, tmp_path: Path) -> None:
    made = write_quantized(miniature, tmp_path / "made", "awq", keep=["0.attention.wqkv", ".w2"])
    found, quantization = read(made)
    assert quantization is not None
    kept = [f"model.layers.0.self_attn.{part}_proj" for part in "qkv"]
    kept += [f"model.layers.{layer}.mlp.down_proj" for layer in (0, 1)]
    assert sorted(quantization.ignore) == sorted(["lm_head", *kept])
    assert all(f"{name}.weight" in found for name in kept)
    assert "model.layers.1.self_attn.q_proj.weight_packed" in found


@pytest.mark.parametrize("layout", INTEGERS)
def test_one_group_of_all_inputs(layout: Layout, miniature: Path, tmp_path: Path) -> None:
    """Layers of 64 and of 96 inputs."""
    made = write_quantized(miniature, tmp_path / "made", layout, group_size=-1)
    dense = write_dequantized(miniature, tmp_path / "dense", group_size=-1)
    found, quantization = read(made)
    same_values(found, read(dense)[0])
    assert quantization is not None and quantization.group_size is None
    assert found["model.layers.0.mlp.down_proj.weight_scale"].shape == (64, 1)


def test_biases_of_zeros_that_autogptq_adds(miniature: Path, tmp_path: Path) -> None:
    made = write_quantized(miniature, tmp_path / "made", "gptq")
    plain, _ = read(made)
    words = {name: tensor for name, tensor in load(made / LANGUAGE_FILE).items() if "qw" in name}
    zeros = {
        f"{name.removesuffix('.qweight')}.bias": torch.zeros(tensor.shape[1])
        for name, tensor in words.items()
    }
    edit_tensors(made, zeros)
    found, _ = read(made)
    assert found.keys() == plain.keys()
    edit_tensors(made, {f"{WO}.bias": torch.ones(64)})
    with pytest.raises(CheckpointError, match=rf"{SINGLE}: {WO}\.bias is not all zero"):
        read(made)


def test_pickled_weights_are_converted_first(miniature: Path, tmp_path: Path) -> None:
    """As LMDeploy saves, which made the published InternVL2 AWQ models."""
    made = write_quantized(miniature, tmp_path / "made", "awq")
    expected, _ = read(made)
    tensors: dict[str, Tensor] = {}
    for path in made.glob("*.safetensors*"):
        tensors |= load(path) if path.suffix == ".safetensors" else {}
        path.unlink()
    torch.save(tensors, made / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"vlmc\.checkpoint\.convert"):
        open_checkpoint(made)
    found, _ = read(convert(made, tmp_path / "converted"))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def rewrite(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Put all weights into one file, the language model's as given."""
    write_tensors(folder, {**load(folder / "model-00001-of-00002.safetensors"), **tensors})


Change = Callable[[dict[str, Tensor]], object]


def put(kind: str, value: Callable[[Tensor], Tensor]) -> Change:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors[f"{WO}.{kind}"] = value(tensors[f"{WO}.{kind}"])

    return change


def nan(tensor: Tensor) -> Tensor:
    return tensor.index_fill(0, torch.tensor([0]), torch.nan)


def fp8_nan(tensor: Tensor) -> Tensor:
    tensor.view(torch.uint8)[3, 5] = 0xFF
    return tensor


DAMAGED: list[tuple[str, Layout, Change, str]] = [
    ("words cut", "awq", put("qweight", lambda t: t[:, :-1]), r"\[64, 7\], expected \[64, 8\]"),
    ("rows cut", "gptq", put("qweight", lambda t: t[:-1]), r"\[7, 64\], expected \[8, 64\]"),
    ("other layout", "gptq", put("qweight", lambda t: t.T), r"\[64, 8\], expected \[8, 64\]"),
    ("64 bits", "awq", put("qweight", lambda t: t.long()), "is I64, expected I32"),
    ("zeros cut", "awq", put("qzeros", lambda t: t[:1]), r"\[1, 8\], expected \[2, 8\]"),
    ("integer scales", "awq", put("scales", lambda t: t.int()), "is I32, expected one of BF16"),
    ("scales of a row", "gptq", put("scales", lambda t: t[:, :1]), r"expected \[2, 64\]"),
    ("no scales", "awq", lambda t: t.pop(f"{WO}.scales"), "has no scales beside its qweight"),
    ("no zeros", "gptq", lambda t: t.pop(f"{WO}.qzeros"), "has no qzeros beside its qweight"),
    ("no words", "awq", lambda t: t.pop(f"{WO}.qweight"), "first .*attention.wo.weight"),
    ("NaN scales", "awq", put("scales", nan), "scales holds NaN"),
    ("NaN scales", "gptq", put("scales", nan), "scales holds NaN"),
    ("NaN scales", "pack-quantized", put("weight_scale", nan), "weight_scale holds NaN"),
    ("NaN scales", "float-quantized", put("weight_scale", nan), "weight_scale holds NaN"),
    ("NaN values", "float-quantized", put("weight", fp8_nan), r"weight holds NaN"),
    ("no fp8 scale", "float-quantized", lambda t: t.pop(f"{WO}.weight_scale"), "no weight_scale"),
    ("no shape", "pack-quantized", lambda t: t.pop(f"{WO}.weight_shape"), "no weight_shape"),
    ("shape", "pack-quantized", put("weight_shape", lambda t: t + 8), r"says \[72, 72\], not"),
    ("act-order", "gptq", put("g_idx", lambda t: t.flip(0)), r"wo\.g_idx assigns .*act-order"),
    ("g_idx cut", "gptq", put("g_idx", lambda t: t[:-8]), r"\[56\], expected \[64\]"),
]


@pytest.mark.parametrize(
    ("layout", "change", "message"),
    [pytest.param(*rest, id=f"{name}-{rest[0]}") for name, *rest in DAMAGED],
)
def test_damage_is_named_with_its_file(
    layout: Layout, change: Change, message: str, miniature: Path, tmp_path: Path
) -> None:
    made = write_quantized(miniature, tmp_path / "made", layout)
    tensors = load(made / LANGUAGE_FILE)
    change(tensors)
    rewrite(made, tensors)
    with pytest.raises(CheckpointError, match=message) as raised:
        read(made)
    assert WO in str(raised.value)
    assert str(made) in str(raised.value)


SETTINGS: list[tuple[Layout, dict[str, Any], str]] = [
    ("awq", {"group_size": 48}, "64 inputs, which the groups of 48"),
    ("awq", {"group_size": 1 << 40}, "64 inputs, which the groups of 1099511627776"),
    ("awq", {"group_size": 12}, "group_size is 12"),
    ("awq", {"group_size": -7}, "group_size is -7"),
    ("awq", {"group_size": 16}, r"wqkv.qzeros has shape \[2, 16\], expected \[4, 16\]"),
    ("awq", {"version": "gemv"}, "version is 'gemv'"),
    ("awq", {"bits": 3}, "bits is 3"),
    ("gptq", {"bits": 8}, "bits is 8"),
    ("gptq", {"checkpoint_format": "marlin"}, "checkpoint_format is 'marlin'"),
    ("gptq", {"checkpoint_format": "gptq_p"}, "checkpoint_format is 'gptq_p'"),
    ("gptq", {"quant_method": "marlin"}, "quant_method is 'marlin'"),
    ("gptq", {"sym": True}, "says that it is symmetric"),
]


@pytest.mark.parametrize(("layout", "changes", "message"), SETTINGS)
def test_settings_that_do_not_fit(
    layout: Layout, changes: dict[str, Any], message: str, miniature: Path, tmp_path: Path
) -> None:
    made = write_quantized(miniature, tmp_path / "made", layout)
    place = "llm_config.quantization_config."
    edit_config(made, {place + key: value for key, value in changes.items()})
    with pytest.raises(CheckpointError, match=message) as raised:
        read(made)
    assert str(made) in str(raised.value)


def test_desc_act_needs_to_tell_the_order(miniature: Path, tmp_path: Path) -> None:
    """A trivial order is none, whatever the setting says; without `g_idx` nobody knows."""
    made = write_quantized(miniature, tmp_path / "made", "gptq")
    edit_config(made, {"llm_config.quantization_config.desc_act": True})
    read(made)
    tensors = load(made / LANGUAGE_FILE)
    del tensors[f"{WO}.g_idx"]
    rewrite(made, tensors)
    with pytest.raises(CheckpointError, match="has no g_idx"):
        read(made)
    edit_config(made, {"llm_config.quantization_config.desc_act": False})
    read(made)


def test_keys_too_few_for_a_word(tmp_path: Path) -> None:
    heads = {"num_attention_heads": 16, "num_key_value_heads": 1}
    source = write_checkpoint(
        tmp_path / "source", "InternLM2ForCausalLM", tower="300m", llm_config=heads
    )
    made = write_quantized(source, tmp_path / "made", "awq")
    with pytest.raises(CheckpointError, match=r"wqkv comes apart into linears of 4 outputs"):
        read(made)


def test_settings_and_weights_must_agree(miniature: Path, tmp_path: Path) -> None:
    made = write_quantized(miniature, tmp_path / "made", "awq")
    settings = json.loads((made / "config.json").read_text())["llm_config"]["quantization_config"]
    edit_config(made, {"llm_config.quantization_config": ...})
    with pytest.raises(CheckpointError, match=r"has no quantization_config: put"):
        read(made)
    edit_config(made, {"quantization_config": settings})
    read(made)
    plain = write_dequantized(miniature, tmp_path / "plain")
    edit_config(plain, {"quantization_config": settings})
    with pytest.raises(CheckpointError, match="says awq, but the files hold no linear"):
        read(plain)
