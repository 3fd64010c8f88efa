"""Decoders with quantized linears compute what their dequantized twins do."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.models.language.sequences import sequence
from tests.models.linears.quantized import FP8, fp8, int4, quantized_and_dense, w4a16
from vlmc.checkpoint.config import LanguageConfig
from vlmc.checkpoint.packed import unpack
from vlmc.checkpoint.quantization import Quantization
from vlmc.errors import CheckpointError
from vlmc.models.language.decoder import Decoder
from vlmc.models.language.load import load_decoder
from vlmc.models.linears.dequantize import (
    dequantize_fp8,
    dequantize_int4,
    quantize_tokens,
    round_tokens,
)
from vlmc.models.linears.fp8 import DenseFp8Linear
from vlmc.models.linears.int4_layout import find_positions
from vlmc.models.linears.quantized import JoinedLinear
from vlmc.models.linears.w4a16 import humming_version

Folder = Callable[[str], Path]
# All four language models; InternLM2's tensors come split into Llama's.
NAMES = ("internlm2-300m", "qwen2-300m", "phi3-300m", "llama-yi-6b")


def load(
    config: LanguageConfig,
    tensors: list[tuple[str, Tensor]],
    quantization: Quantization | None,
    dtype: torch.dtype = torch.float32,
) -> Decoder:
    return load_decoder(config, tensors, dtype=dtype, device="cpu", quantization=quantization)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group_size", [32, None])
@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_w4a16_is_its_dequantized_twin(
    name: str, group_size: int | None, symmetric: bool, miniatures: Folder
) -> None:
    quantization = w4a16(group_size, symmetric=symmetric)
    config, tensors, dense = quantized_and_dense(miniatures(name), quantization)
    assert any("weight_packed" in name for name, _ in tensors)
    # Shards may hold a linear's tensors in any order.
    found, expected = load(config, tensors[::-1], quantization), load(config, dense, None)
    states = sequence(expected, 12)[None]
    assert torch.equal(found(states), expected(states))


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_fp8_rounds_weights_and_tokens(name: str, miniatures: Folder) -> None:
    config, tensors, dense = quantized_and_dense(miniatures(name), FP8)
    found, expected = load(config, tensors, FP8), load(config, dense, None)
    for module in expected.layers.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(lambda _, given: (rounded(given[0]),))
    states = sequence(expected, 12)[None]
    torch.testing.assert_close(found(states), expected(states), rtol=0, atol=1e-5)
    assert isinstance(found.get_submodule("layers.0.self_attn.qkv_proj"), DenseFp8Linear)


def rounded(states: Tensor) -> Tensor:
    """Each token rounded to E4M3 with its largest value at 448."""
    scale = states.abs().amax(-1, keepdim=True) / 448
    return (states / scale).to(torch.float8_e4m3fn).float() * scale


@torch.inference_mode()
def test_linears_left_in_16_bits_stay_dense(miniature: Path) -> None:
    ignore = (r"re:.*layers\.0\.mlp", "model.layers.1.self_attn.k_proj")
    quantization = w4a16(32, symmetric=False, ignore=ignore)
    config, tensors, dense = quantized_and_dense(miniature, quantization)
    assert not any("0.mlp" in name and "packed" in name for name, _ in tensors)
    found, expected = load(config, tensors, quantization), load(config, dense, None)
    joined = found.get_submodule("layers.1.self_attn.qkv_proj")
    assert isinstance(joined, JoinedLinear)
    assert len(joined.parts) == 3
    states = sequence(expected, 12)[None]
    torch.testing.assert_close(found(states), expected(states), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_dequantized_once_in_the_dtype_that_is_computed_in(
    dtype: torch.dtype, miniature: Path
) -> None:
    quantization = w4a16(32, symmetric=False)
    config, tensors, dense = quantized_and_dense(miniature, quantization)
    found = load(config, tensors, quantization, dtype)
    for name, tensor in dense:
        if name.endswith("down_proj.weight"):
            weight = found.get_parameter(name.removeprefix("model."))
            assert torch.equal(weight, tensor.to(dtype))


def test_rows_are_made_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(40, 64, generator=torch.Generator().manual_seed(1))
    tensors, exact = int4(weight, 32, symmetric=False)
    values, exact_fp8 = fp8(weight)
    monkeypatch.setattr("vlmc.models.linears.dequantize.ELEMENTS", 64 * 7)
    found = dequantize_int4(
        tensors["weight_packed"],
        tensors["weight_scale"],
        tensors["weight_zero_point"],
        torch.float32,
    )
    assert torch.equal(found, exact)
    found = dequantize_fp8(values["weight"], values["weight_scale"], torch.float32)
    assert torch.equal(found, exact_fp8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounding_is_that_of_e4m3_to_the_bit(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmc.models.linears.dequantize._CACHED", 3000)
    generator = torch.Generator().manual_seed(4)
    states = torch.randn(40, 1000, generator=generator) * torch.logspace(-6, 6, 40)[:, None]
    states[3] = 0
    states[4, 2:] *= 1e-5  # less than the smallest step
    every = torch.arange(128, dtype=torch.uint8).view(torch.float8_e4m3fn).float()[:127]
    states[5, :253] = torch.cat((every, (every[1:] + every[:-1]) / 2))  # and all halves between
    states = states.to(dtype)
    before = states.clone()
    values, scales = quantize_tokens(states)
    assert torch.equal(round_tokens(states), (values.float() * scales).to(dtype))
    assert torch.equal(states, before)
    assert not round_tokens(states)[3].any()


def test_places_of_a_layout_are_found() -> None:
    order = torch.randperm(1024, generator=torch.Generator().manual_seed(2))

    def repack(packed: Tensor) -> Tensor:
        from vlmc.checkpoint.packed import pack

        return pack(unpack(packed).flatten()[order][None])

    positions = find_positions(repack, 64, 16, torch.device("cpu"))
    assert torch.equal(order[positions.long()], torch.arange(1024))


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("weight_scale", torch.full((32, 2), torch.nan), "k_proj.weight_scale holds NaN"),
        ("weight_scale", torch.ones(32, 1), r"k_proj.weight_scale has shape \[32, 1\]"),
        ("weight_packed", torch.ones(32, 8), "k_proj.weight_packed is torch.float32"),
        ("weight_shape", torch.tensor([32, 32]), r"k_proj.weight_shape is \[32, 32\]"),
        ("weight_g_idx", torch.zeros(64, dtype=torch.int32), r"k_proj.weight_g_idx.*act-order"),
        ("weight_lattice", torch.zeros(1), "no parameter for tensor .*k_proj.weight_lattice"),
        ("weight_zero_point", None, "1 of the model's .* first layers.1.self_attn.qkv_proj"),
    ],
)
def test_wrong_tensors_are_named(
    kind: str, value: Tensor | None, message: str, miniature: Path
) -> None:
    quantization = w4a16(32, symmetric=False)
    config, tensors, _ = quantized_and_dense(miniature, quantization)
    changed = dict(tensors)
    name = f"model.layers.1.self_attn.k_proj.{kind}"
    if value is None:
        del changed[name]
    else:
        changed[name] = value
    with pytest.raises(CheckpointError, match=message):
        load(config, list(changed.items()), quantization)


def test_nan_in_fp8_weights_is_named(miniature: Path) -> None:
    config, tensors, _ = quantized_and_dense(miniature, FP8)
    changed = dict(tensors)
    weight = changed["model.layers.0.mlp.up_proj.weight"]
    weight.view(torch.uint8)[3, 5] = 255
    with pytest.raises(CheckpointError, match=r"tensor model\.layers\.0\.mlp\.up_proj\.weight"):
        load(config, list(changed.items()), FP8)


def test_groups_that_do_not_divide_are_refused(miniature: Path) -> None:
    config, tensors, _ = quantized_and_dense(miniature, w4a16(32, symmetric=True))
    with pytest.raises(CheckpointError, match=r"q_proj: groups of 48 do not divide its 64 inputs"):
        load(config, tensors, w4a16(48, symmetric=True))


def test_layouts_of_source_checkpoints_are_converted_before(miniature: Path) -> None:
    config, tensors, _ = quantized_and_dense(miniature, w4a16(32, symmetric=True))
    with pytest.raises(CheckpointError, match="layout awq cannot be loaded directly"):
        load(config, tensors, Quantization("awq", 32, False, ("Linear",)))


@pytest.mark.parametrize("installed", [None, "0.1.18", "0.2.0"])
def test_lost_speed_is_told(installed: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if installed is None:
            raise PackageNotFoundError(name)
        return installed

    monkeypatch.setattr("vlmc.models.linears.w4a16.version", version)
    humming_version.cache_clear()
    with pytest.warns(UserWarning, match=r"\d ms instead of \d.*\[cuda\]"):
        assert humming_version() is None
    humming_version.cache_clear()


@pytest.mark.parametrize("installed", ["0.1.19", "0.1.20.post1"])
def test_the_fitting_package_is_taken(installed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vlmc.models.linears.w4a16.version", lambda _: installed)
    humming_version.cache_clear()
    assert humming_version() == installed
    humming_version.cache_clear()
