"""Rotary scaling and norms where only their definition can be compared with."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.models.loaded import load
from vlmc.checkpoint.rope_config import RopeScaling
from vlmc.models.language.rope import RotaryEmbedding, rotate
from vlmc.models.norm import RMSNorm

Folder = Callable[[str], Path]


def test_linear_scaling_divides_positions(miniature: Path) -> None:
    config = load(miniature).config.language
    scaling = RopeScaling(kind="linear", factor=4.0)
    scaled = RotaryEmbedding(replace(config, rope_scaling=scaling))
    plain = RotaryEmbedding(replace(config, rope_scaling=RopeScaling()))
    positions, lengths = torch.arange(9)[None], torch.tensor([9])
    found = scaled(4 * positions, lengths, torch.float32)
    for ours, expected in zip(found, plain(positions, lengths, torch.float32), strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize(
    ("length", "base"), [(500, 1e6), (512, 1e6), (513, None), (768, None), (2048, None)]
)
def test_dynamic_scaling_raises_the_base_by_the_length(
    length: int, base: float | None, miniatures: Folder
) -> None:
    config = load(miniatures("internlm2-300m-ntk")).config.language
    dim = config.head_dim
    if base is None:
        base = 1e6 * (2.0 * length / 512 - 1) ** (dim / (dim - 2))
    place = torch.tensor([[1]])
    cosine, sine = RotaryEmbedding(config)(place, torch.tensor([length]), torch.float32)
    assert cosine.shape == (1, 1, 1, dim)
    for index in range(dim):
        angle = base ** (-2 * (index % (dim // 2)) / dim)
        assert float(cosine[0, 0, 0, index]) == pytest.approx(math.cos(angle), abs=1e-6)
        assert float(sine[0, 0, 0, index]) == pytest.approx(math.sin(angle), abs=1e-6)


@pytest.mark.parametrize("longest", [512, 400])
def test_a_model_as_long_as_its_window_does_not_scale_attention(
    longest: int, miniatures: Folder
) -> None:
    config = load(miniatures("phi3-300m")).config.language
    ratio = config.max_positions / 512
    expected = math.sqrt(1 + math.log(ratio) / math.log(512))
    assert RotaryEmbedding(config).attention_factor == pytest.approx(expected)
    assert RotaryEmbedding(replace(config, max_positions=longest)).attention_factor == 1.0


def test_every_token_may_have_its_own_length(miniatures: Folder) -> None:
    for name in ("phi3-300m", "internlm2-300m-ntk"):
        rotary = RotaryEmbedding(load(miniatures(name)).config.language)
        positions = torch.tensor([[510, 511, 512, 600]])
        together = rotary(positions, positions + 1, torch.float32)
        for index in range(4):
            place = positions[:, index : index + 1]
            alone = rotary(place, place[:, 0] + 1, torch.float32)
            for found, expected in zip(together, alone, strict=True):
                assert torch.equal(found[:, :, index : index + 1], expected)


def test_angles_are_computed_in_fp32_and_cast_last(miniature: Path) -> None:
    rotary = RotaryEmbedding(load(miniature).config.language)
    positions, lengths = torch.tensor([[3001, 3002]]), torch.tensor([3003])
    wide, half = (rotary(positions, lengths, dtype) for dtype in (torch.float32, torch.bfloat16))
    for found, expected in zip(half, wide, strict=True):
        assert torch.equal(found, expected.bfloat16())


def test_halves_of_a_head_are_rotated_against_each_other() -> None:
    states = torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 1, 4)
    angle = torch.tensor([0.3, 1.1, 0.3, 1.1]).reshape(1, 1, 1, 4)
    found = rotate(states, angle.cos(), angle.sin()).flatten()
    for index, (first, second) in enumerate(((1.0, 3.0), (2.0, 4.0))):
        turned = complex(first, second) * complex(math.cos(angle.flatten()[index]), 0)
        turned += complex(-second, first) * math.sin(angle.flatten()[index])
        assert float(found[index]) == pytest.approx(turned.real)
        assert float(found[index + 2]) == pytest.approx(turned.imag)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_norm_casts_back_before_the_weight(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(64, 96, generator=generator).to(dtype)
    norm = RMSNorm(96, 1e-5).to(dtype)
    norm.weight.data = (1 + torch.randn(96, generator=generator)).to(dtype)
    wide = states.double()
    normed = (wide / (wide.square().mean(-1, keepdim=True) + 1e-5).sqrt()).float()
    expected = norm.weight * normed.to(dtype)
    # An fp32 sum in another order may round a few values the other way.
    assert float((norm(states) == expected).float().mean()) > 0.99
    cast_last = (norm.weight.float() * normed).to(dtype)
    assert float((cast_last == expected).float().mean()) < 0.9
