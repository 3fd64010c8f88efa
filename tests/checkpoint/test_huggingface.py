"""The language model's Hugging Face layout: names, rows and configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.miniature import MINIATURES, write_checkpoint
from tests.models.loaded import load
from vlmc.checkpoint.config import parse_language_config
from vlmc.checkpoint.huggingface import language_config_json, language_tensors, tower_tensors
from vlmc.checkpoint.layout import original_shapes
from vlmc.checkpoint.source import open_checkpoint
from vlmc.models.language.load import load_decoder

Folder = Callable[[str], Path]


def test_packed_rows_become_queries_keys_and_values(miniatures: Folder, tmp_path: Path) -> None:
    """Each key head's rows are those of its query heads, the key, the value."""
    folder = write_checkpoint(
        tmp_path / "biased", "InternLM2ForCausalLM", tower="300m", llm_config={"bias": True}
    )
    with open_checkpoint(folder) as checkpoint:
        config = checkpoint.config.language
        packed = {
            kind: checkpoint.weights.tensor(
                f"language_model.model.layers.1.attention.wqkv.{kind}"
            ).clone()
            for kind in ("weight", "bias")
        }
        found = dict(language_tensors(checkpoint.weights, config))
        bias = checkpoint.weights.tensor("language_model.model.layers.0.attention.wo.bias")
        assert torch.equal(found["model.layers.0.self_attn.o_proj.bias"], bias)
    group, size = config.heads // config.kv_heads, config.head_dim
    for kind, rows in packed.items():
        at = 0
        expected: dict[str, list[torch.Tensor]] = {"q": [], "k": [], "v": []}
        for _ in range(config.kv_heads):
            for part in ("q",) * group + ("k", "v"):
                expected[part].append(rows[at : at + size])
                at += size
        assert at == len(rows)
        for part, pieces in expected.items():
            name = f"model.layers.1.self_attn.{part}_proj.{kind}"
            assert torch.equal(found[name], torch.cat(pieces))


@pytest.mark.parametrize("name", MINIATURES)
def test_the_written_configuration_reads_back(name: str, miniatures: Folder) -> None:
    config = load(miniatures(name)).config.language
    values = language_config_json(config, dtype="bfloat16", bos_id=1, eos_id=2, pad_id=None)
    internlm2 = config.architecture == "InternLM2ForCausalLM"
    architecture = "LlamaForCausalLM" if internlm2 else config.architecture
    found = parse_language_config(values, Path("config.json"))
    assert found == replace(config, architecture=architecture)


@pytest.mark.parametrize("bias", [False, True])
@torch.inference_mode()
def test_a_llama_from_internlm2_computes_the_same(bias: bool, tmp_path: Path) -> None:
    folder = write_checkpoint(
        tmp_path / "source", "InternLM2ForCausalLM", tower="300m", llm_config={"bias": bias}
    )
    with open_checkpoint(folder) as checkpoint:
        config = checkpoint.config.language
        values = language_config_json(config, dtype="float32", bos_id=1, eos_id=2, pad_id=2)
        llama = parse_language_config(values, Path("config.json"))
        assert llama.qkv_bias is llama.output_bias is bias
        tensors = dict(language_tensors(checkpoint.weights, config))
        embedded = torch.randn(1, 9, 64, generator=torch.Generator().manual_seed(0))
        states = [
            load_decoder(language, tensors.items(), dtype=torch.float32, device="cpu")(embedded)
            for language in (config, llama)
        ]
    assert torch.equal(*states)


@pytest.mark.parametrize("name", MINIATURES)
def test_every_tensor_has_its_place(name: str, miniatures: Folder) -> None:
    """Tower and language model together take what the original layout holds, and nothing else."""
    with open_checkpoint(miniatures(name)) as checkpoint:
        weights, config = checkpoint.weights, checkpoint.config
        tower = {key: tensor.numel() for key, tensor in tower_tensors(weights, config)}
        language = {
            key: tensor.numel() for key, tensor in language_tensors(weights, config.language)
        }
        shapes = original_shapes(config)
    unused = {
        key
        for key in shapes
        if ".layers." in key
        and key.startswith("vision_model.")
        and int(key.split(".")[3]) >= config.vision_layers
    }
    assert bool(unused) == (config.select_layer != -1)
    expected = sum(torch.Size(shapes[key]).numel() for key in shapes.keys() - unused)
    assert sum(tower.values()) + sum(language.values()) == expected
    assert not any(key.startswith("language_model.") for key in language)
