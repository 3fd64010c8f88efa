"""Words that vlmc lays out, and its own reading of them, against what AutoAWQ and AutoGPTQ read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from vlmc.checkpoint.packed import (
    awq_to_compressed,
    compressed_to_awq,
    compressed_to_gptq,
    gptq_to_compressed,
)
from vlmc.models.linears.dequantize import dequantize_int4

READERS = Path(__file__).parents[1] / "data" / "readers"
GROUPS = [f"group{size}-{kind}" for size in (32, 128) for kind in ("symmetric", "asymmetric")]
COMPRESSED = ("weight_packed", "weight_scale", "weight_shape", "weight_zero_point")


def case_of(reader: str, case: str) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """A linear as an artifact holds it, as it is exported, and the weight that the reader saw."""
    tensors = {
        name.removeprefix(f"{case}."): tensor
        for name, tensor in load_file(READERS / f"{reader}.safetensors").items()
        if name.startswith(f"{case}.")
    }
    read = tensors.pop("read")
    compressed = {name: tensors.pop(name) for name in COMPRESSED if name in tensors}
    return compressed, tensors, read


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


def weight_of(linear: dict[str, Tensor]) -> Tensor:
    """As the runtime reads it, rounded to fp16 once."""
    zeros = linear.get("weight_zero_point")
    return dequantize_int4(linear["weight_packed"], linear["weight_scale"], zeros, torch.float16)


@pytest.mark.parametrize("case", GROUPS)
def test_autoawq(case: str) -> None:
    compressed, words, read = case_of("autoawq", case)
    same(compressed_to_awq(compressed), words)
    assert torch.equal(weight_of(awq_to_compressed(words)), read)
    assert torch.equal(weight_of(compressed), read)


@pytest.mark.parametrize("case", GROUPS)
def test_autogptq(case: str) -> None:
    compressed, words, read = case_of("autogptq", case)
    same(compressed_to_gptq(compressed), words)
    symmetric = case.endswith("-symmetric")
    found = gptq_to_compressed(words, version=1, symmetric=symmetric)
    same(found, compressed)
    assert torch.equal(weight_of(found), read)


def test_zero_points_are_stored_less_one() -> None:
    """The first sixteen outputs of the first group have the zero points 0 to 15."""
    _, words, _ = case_of("autogptq", "group32-asymmetric")
    # 7 to 14 in the second word; 15, 0, 1, … 6 in the first: 0 wraps around.
    assert words["qzeros"][0, 0].item() == 0x6543210F
    assert words["qzeros"][0, 1].item() == 0xEDCBA987 - (1 << 32)
