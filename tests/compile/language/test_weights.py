"""The language folder: the original's weights under Hugging Face names, and its tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from tests.miniature import MINIATURES
from tests.miniature.configuration import STOP_TOKENS
from vlmc.checkpoint.config import parse_language_config
from vlmc.checkpoint.huggingface import language_config_json
from vlmc.checkpoint.source import open_checkpoint
from vlmc.compile.language import hf_config as settings
from vlmc.compile.language import weights as language
from vlmc.text.prompt import PromptBuilder
from vlmc.text.template import TEMPLATES
from vlmc.text.tokenizer import TOKENIZER_FILES, load_tokenizer

Dtype = Literal["float32", "bfloat16", "float16"]


def compiled(checkpoint: Path, folder: Path, dtype: Dtype = "bfloat16") -> Path:
    with open_checkpoint(checkpoint) as opened:
        prompts = PromptBuilder(opened.tokenizer, TEMPLATES[opened.config.template])
        values = language_config_json(
            opened.config.language,
            dtype=dtype,
            bos_id=opened.tokenizer.bos_id,
            eos_id=prompts.stop_id,
            pad_id=opened.tokenizer.pad_id,
        )
        folder.mkdir(parents=True, exist_ok=True)
        settings.write_hf_config(values, folder)
        settings.copy_tokenizer(checkpoint, folder)
        language.write_weights(opened, folder, dtype)
    return folder


def tensors_of(folder: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        part = load_file(path)
        assert not tensors.keys() & part.keys()
        tensors |= part
    return tensors


def original_of(checkpoint: Path) -> dict[str, Tensor]:
    tensors = tensors_of(checkpoint)
    prefix = "language_model."
    return {key.removeprefix(prefix): tensors[key] for key in tensors if key.startswith(prefix)}


def renamed(original: dict[str, Tensor], heads: int, kv_heads: int) -> dict[str, Tensor]:
    """InternLM2's tensors as a Llama's, written out row by row."""
    names = {
        "model.tok_embeddings": "model.embed_tokens",
        "output": "lm_head",
        "attention.wo": "self_attn.o_proj",
        "feed_forward.w1": "mlp.gate_proj",
        "feed_forward.w2": "mlp.down_proj",
        "feed_forward.w3": "mlp.up_proj",
        "attention_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
    }
    result: dict[str, Tensor] = {}
    for key, tensor in original.items():
        if "attention.wqkv" in key:
            size = len(tensor) // (heads + 2 * kv_heads)
            blocks = list(torch.split(tensor, size))
            group = heads // kv_heads + 2
            for part, chosen in {
                "q": [block for i, block in enumerate(blocks) if i % group < group - 2],
                "k": blocks[group - 2 :: group],
                "v": blocks[group - 1 :: group],
            }.items():
                new = key.replace("attention.wqkv", f"self_attn.{part}_proj")
                result[new] = torch.cat(chosen)
            continue
        for old, new in names.items():
            if key.endswith(f"{old}.weight"):
                key = key.replace(old, new)
                break
        result[key] = tensor
    return result


@pytest.mark.parametrize("name", MINIATURES)
def test_weights_are_the_originals(
    name: str, miniatures: Callable[[str], Path], tmp_path: Path
) -> None:
    expected = original_of(miniatures(name))
    settings = json.loads((miniatures(name) / "config.json").read_text())["llm_config"]
    if settings["architectures"] == ["InternLM2ForCausalLM"]:
        heads, kv_heads = settings["num_attention_heads"], settings["num_key_value_heads"]
        expected = renamed(expected, heads, kv_heads)
    found = tensors_of(compiled(miniatures(name), tmp_path))
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert found[key].dtype == torch.bfloat16
        assert torch.equal(found[key], tensor), key


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_dtype_is_that_of_every_tensor(dtype: Dtype, miniature: Path, tmp_path: Path) -> None:
    original = tensors_of(compiled(miniature, tmp_path / "bfloat16"))
    found = tensors_of(compiled(miniature, tmp_path / "other", dtype))
    for key, tensor in original.items():
        assert found[key].dtype == getattr(torch, dtype)
        assert torch.equal(found[key], tensor.to(found[key].dtype))
    assert json.loads((tmp_path / "other" / "config.json").read_text())["torch_dtype"] == dtype


@pytest.mark.parametrize("name", MINIATURES)
def test_configuration_and_tokenizer_are_read_back(
    name: str, miniatures: Callable[[str], Path], tmp_path: Path
) -> None:
    checkpoint = miniatures(name)
    folder = compiled(checkpoint, tmp_path)
    path = folder / "config.json"
    again = parse_language_config(json.loads(path.read_text()), path)
    with open_checkpoint(checkpoint) as opened:
        written, tokenizer = opened.config.language, opened.tokenizer
    same = ("hidden_size", "layers", "heads", "kv_heads", "head_dim", "vocab_size", "norm_eps")
    for key in (*same, "rope_theta", "rope_scaling", "max_positions", "intermediate_size"):
        assert getattr(again, key) == getattr(written, key), key
    for file in TOKENIZER_FILES:
        assert (folder / file).exists() == (checkpoint / file).exists()
        if (folder / file).exists():
            assert (folder / file).read_bytes() == (checkpoint / file).read_bytes()
    text = "<|im_start|>user\nIs it a room? 请回答<|im_end|>"
    assert load_tokenizer(folder).encode(text) == tokenizer.encode(text)
    settings = json.loads((folder / "generation_config.json").read_text())
    kind = MINIATURES[name].tokenizer or tokenizer_of(MINIATURES[name].architecture)
    assert settings["eos_token_id"] == STOP_TOKENS[kind][0]


def tokenizer_of(architecture: str) -> Literal["internlm2", "qwen2", "phi3"]:
    kinds: dict[str, Literal["internlm2", "qwen2", "phi3"]] = {
        "InternLM2ForCausalLM": "internlm2",
        "Qwen2ForCausalLM": "qwen2",
        "Phi3ForCausalLM": "phi3",
    }
    return kinds[architecture]


def test_large_models_are_written_in_shards(
    miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tensors_of(compiled(miniature, tmp_path / "whole"))
    limit = 100_000
    monkeypatch.setattr(language, "SHARD_BYTES", limit)
    folder = compiled(miniature, tmp_path / "shards")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in whole.values())
    files = sorted(path.name for path in folder.glob("*.safetensors"))
    count = len(files)
    assert count > 2
    assert files == [f"model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]
    for file in files:
        with safe_open(folder / file, "pt") as shard:
            names = set(shard.keys())
            sizes = [shard.get_tensor(name).nbytes for name in names]
        assert names == {name for name, place in index["weight_map"].items() if place == file}
        assert sum(sizes) <= limit or len(sizes) == 1
    assert {name: tensor.shape for name, tensor in tensors_of(folder).items()} == {
        name: tensor.shape for name, tensor in whole.items()
    }
    for name, tensor in tensors_of(folder).items():
        assert torch.equal(tensor, whole[name])
