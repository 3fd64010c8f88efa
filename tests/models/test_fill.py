"""Filling models: every parameter exactly once, in the dtype asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.models.loaded import parts
from vlmc.checkpoint.config import ModelConfig
from vlmc.errors import CheckpointError
from vlmc.models.language.decoder import Decoder
from vlmc.models.language.load import load_decoder
from vlmc.models.vision.load import load_tower

Folder = Callable[[str], Path]


def fill(config: ModelConfig, tensors: list[tuple[str, Tensor]]) -> Decoder:
    return load_decoder(config.language, tensors, dtype=torch.float32, device="cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_parameters_have_the_dtype_and_take_no_gradient(
    dtype: torch.dtype, miniature: Path
) -> None:
    config, vision, language = parts(miniature)
    models = (
        load_tower(config, vision.items(), dtype=dtype, device="cpu"),
        load_decoder(config.language, language.items(), dtype=dtype, device="cpu"),
    )
    for model in models:
        assert not model.training
        for parameter in model.parameters():
            assert parameter.dtype == dtype
            assert not parameter.requires_grad
            assert parameter.isfinite().all()


def test_parameters_are_copies_of_the_file(miniature: Path) -> None:
    config, _, language = parts(miniature)
    before = language["model.norm.weight"].float().clone()
    decoder = load_decoder(config.language, language.items(), dtype=torch.bfloat16, device="cpu")
    decoder.norm.weight.fill_(7.0)
    assert torch.equal(language["model.norm.weight"].float(), before)
    assert torch.equal(parts(miniature)[2]["model.norm.weight"].float(), before)


@pytest.mark.parametrize(
    "name", ["model.norm.weight", "model.layers.1.self_attn.k_proj.weight", "lm_head.weight"]
)
def test_a_missing_tensor_is_named(name: str, miniature: Path) -> None:
    config, _, language = parts(miniature)
    del language[name]
    whole = name.removeprefix("model.").replace("k_proj", "qkv_proj")
    with pytest.raises(CheckpointError, match=f"1 of the model's.*first {whole}"):
        fill(config, list(language.items()))


@pytest.mark.parametrize(
    ("doubled", "lacking"),
    [
        ("model.norm.weight", None),
        # Of equal size, so that only their places tell them apart.
        ("model.layers.0.self_attn.k_proj.weight", "model.layers.0.self_attn.v_proj.weight"),
        ("model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.up_proj.weight"),
    ],
)
def test_a_doubled_tensor_is_refused(doubled: str, lacking: str | None, miniature: Path) -> None:
    config, _, language = parts(miniature)
    entries = [(name, tensor) for name, tensor in language.items() if name != lacking]
    with pytest.raises(CheckpointError, match=f"contain tensor {doubled} twice"):
        fill(config, [*entries, (doubled, language[doubled])])


def test_an_unknown_tensor_is_refused(miniature: Path) -> None:
    config, _, language = parts(miniature)
    with pytest.raises(CheckpointError, match=r"no parameter for tensor model\.layers\.2\.extra"):
        fill(config, [*language.items(), ("model.layers.2.extra", torch.zeros(3))])


def test_a_tensor_of_another_shape_is_refused(miniature: Path) -> None:
    config, _, language = parts(miniature)
    language["model.layers.0.self_attn.k_proj.weight"] = torch.zeros(32, 63)
    with pytest.raises(CheckpointError, match=r"k_proj.* shape \[32, 63\].* needs \[32, 64\]"):
        fill(config, list(language.items()))


def test_the_tower_names_what_it_lacks(miniatures: Folder) -> None:
    config, vision, _ = parts(miniatures("internlm2-6b"))
    del vision["vision_model.encoder.layers.1.attn.q_norm.weight"]
    with pytest.raises(CheckpointError, match=r"first vision_model.*1\.attn\.q_norm\.weight"):
        load_tower(config, vision.items(), dtype=torch.float32, device="cpu")


def test_the_head_is_padded_and_nobody_sees_it(miniature: Path) -> None:
    config, _, language = parts(miniature)
    assert config.language.vocab_size % 64
    head = fill(config, list(language.items())).lm_head
    assert head.padded is not None
    assert len(head.padded) % 64 == 0
    assert not head.padded[config.language.vocab_size :].any()
    assert torch.equal(head.weight, language["lm_head.weight"].float())
    states = torch.randn(3, config.language.hidden_size)
    found = head(states)
    assert found.shape == (3, config.language.vocab_size)
    torch.testing.assert_close(found, states @ head.weight.T)
