"""Opening a whole checkpoint: configuration, tokenizer and tensors have to agree."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.checkpoint import edit
from tests.checkpoint.refusal import open_files, refusal
from tests.miniature import MINIATURES
from vlmc.checkpoint.layout import original_shapes
from vlmc.checkpoint.source import open_checkpoint

NORM = "language_model.model.norm.weight"
BLOCK = "vision_model.encoder.layers.0."


def refused(folder: Path) -> str:
    """The message with which the checkpoint is refused; leaves no file open."""
    return refusal(open_checkpoint, folder)


@pytest.mark.parametrize("name", MINIATURES)
def test_miniatures_are_opened_and_closed(name: str, miniatures: Callable[[str], Path]) -> None:
    before = open_files()
    with open_checkpoint(miniatures(name)) as checkpoint:
        weights = checkpoint.weights
        assert {key: weights.shape(key) for key in weights} == original_shapes(checkpoint.config)
        weights.tensor(NORM)
    assert open_files() == before


@pytest.mark.parametrize("name", [NORM, BLOCK + "ls2", "mlp1.3.bias"])
def test_a_missing_tensor_is_named(name: str, editable: Path) -> None:
    edit.edit_tensors(editable, {name: None})
    assert f"lacks 1 of the 55 tensors that its config.json describes, first {name}" in refused(
        editable
    )


def test_an_unknown_tensor_is_named(editable: Path) -> None:
    edit.edit_tensors(editable, {"language_model.model.layers.2.ffn_norm.weight": torch.ones(64)})
    message = refused(editable)
    assert "model.safetensors holds language_model.model.layers.2.ffn_norm.weight" in message


def test_buffers_of_old_exports_are_ignored(editable: Path) -> None:
    extra = {
        "language_model.model.layers.0.attention.rotary_emb.inv_freq": torch.ones(8),
        "vision_model.embeddings.position_ids": torch.arange(1025)[None],
    }
    edit.edit_tensors(editable, extra)
    open_checkpoint(editable).weights.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (NORM, (63,)),
        (BLOCK + "attn.qkv.weight", (32, 96)),
        (BLOCK + "ls1", (1, 32)),
        ("vision_model.embeddings.position_embedding", (1, 257, 32)),
        ("vision_model.embeddings.patch_embedding.weight", (32, 3, 16, 16)),
        ("language_model.model.layers.1.attention.wqkv.weight", (127, 64)),
        ("mlp1.1.weight", (64, 32)),
    ],
)
def test_another_shape_is_refused(name: str, shape: tuple[int, ...], editable: Path) -> None:
    expected = list(edit.tensors(editable)[name].shape)
    edit.edit_tensors(editable, {name: torch.zeros(shape)})
    assert f"{name} has shape {list(shape)}, expected {expected} by config.json" in refused(
        editable
    )


@pytest.mark.parametrize("part", ["model.tok_embeddings", "output"])
@pytest.mark.parametrize("rows", [615, 617])
def test_another_vocabulary_is_explained(part: str, rows: int, editable: Path) -> None:
    name = f"language_model.{part}.weight"
    edit.edit_tensors(editable, {name: torch.zeros(rows, 64)})
    message = refused(editable)
    assert f"{name} has shape [{rows}, 64], expected [616, 64]" in message
    assert "as many rows as the tokenizer has tokens" in message


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(editable: Path) -> None:
    edit.edit_config(editable, {"llm_config.vocab_size": 615})
    message = refused(editable)
    assert (
        "the tokenizer has 616 tokens, but llm_config.vocab_size in config.json is 615" in message
    )


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.float64, torch.bool])
def test_tensors_that_are_no_floats_are_refused(dtype: torch.dtype, editable: Path) -> None:
    edit.edit_tensors(editable, {NORM: torch.ones(64).to(dtype)})
    message = refused(editable)
    assert f"{NORM} is " in message
    assert "expected one of BF16, F16, F32" in message


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_other_float_dtypes_may_be_mixed(dtype: torch.dtype, editable: Path) -> None:
    edit.edit_tensors(editable, {NORM: torch.ones(64).to(dtype)})
    with open_checkpoint(editable) as checkpoint:
        assert checkpoint.weights.tensor(NORM).dtype == dtype


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vision_config.num_hidden_layers": 1}, BLOCK.replace("0", "1")),
        ({"vision_config.num_hidden_layers": 3}, BLOCK.replace("0", "2")),
        ({"vision_config.qkv_bias": False}, "attn.qkv.bias"),
        ({"vision_config.qk_normalization": True}, "attn.k_norm.weight"),
        ({"vision_config.norm_type": "rms_norm"}, "norm1.bias"),
        ({"vision_config.image_size": 224}, "position_embedding has shape [1, 1025, 32]"),
        ({"llm_config.bias": True}, "attention.wo.bias"),
        ({"llm_config.num_hidden_layers": 1}, "language_model.model.layers.1."),
        ({"llm_config.num_key_value_heads": 4}, "wqkv.weight has shape [128, 64], expected [192"),
        ({"llm_config.intermediate_size": 97}, "feed_forward.w1.weight has shape [96, 64]"),
        ({"llm_config.architectures": ["LlamaForCausalLM"]}, "language_model.lm_head.weight"),
    ],
)
def test_a_configuration_of_another_model_is_refused(
    changes: dict[str, Any], message: str, editable: Path
) -> None:
    edit.edit_config(editable, changes)
    assert message in refused(editable)


def test_what_is_no_folder_is_refused(editable: Path) -> None:
    for path in (editable / "absent", editable / "config.json"):
        assert "is not a folder" in refused(path)


def test_no_code_of_the_checkpoint_runs(editable: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    config = json.loads((editable / "config.json").read_text())
    settings = json.loads((editable / "tokenizer_config.json").read_text())
    named = [*config["auto_map"].values(), settings["auto_map"]["AutoTokenizer"][0]]
    for module in {name.split(".")[0] for name in named} | {"sitecustomize", "torch", "conftest"}:
        (editable / f"{module}.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    before = list(sys.path)
    with open_checkpoint(editable) as checkpoint:
        for name in checkpoint.weights:
            checkpoint.weights.tensor(name)
        checkpoint.tokenizer.encode("a room")
    assert not marker.exists()
    assert sys.path == before
