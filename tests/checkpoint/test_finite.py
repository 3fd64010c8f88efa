"""NaN and infinity are found wherever they are, and named with tensor and file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.checkpoint import edit
from vlmc.checkpoint.finite import is_finite, to_dtype
from vlmc.checkpoint.source import open_checkpoint
from vlmc.errors import CheckpointError

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
BAD = (float("nan"), -float("nan"), float("inf"), -float("inf"))
# Beyond the chunks in which values are looked at, and in the last one that is not full.
COUNT = 700_001


@pytest.mark.parametrize("dtype", FLOATS)
def test_every_place_and_sign_is_looked_at(dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    values = torch.linspace(-1, 1, COUNT).to(dtype)
    values[:4] = torch.tensor([largest, -largest, 0.0, -0.0])
    assert is_finite(values) and is_finite(values[:0])
    for place in (0, 131_071, 262_144, COUNT - 1):
        for bad in BAD:
            changed = values.clone()
            changed[place] = bad
            assert not is_finite(changed), (place, bad)
            assert not is_finite(changed[None].T), "not contiguous"


def test_every_part_of_a_large_tensor_is_looked_at() -> None:
    values = torch.zeros(10_000_001, dtype=torch.float32)  # shared by threads
    assert is_finite(values)
    for place in range(0, len(values), len(values) // 8):
        values[place] = BAD[0]
        assert not is_finite(values), place
        values[place] = 0


def test_eight_bits_and_integers() -> None:
    every = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn)
    found = [is_finite(every[i : i + 1]) for i in range(256)]
    assert [i for i in range(256) if not found[i]] == [0x7F, 0xFF]
    assert is_finite(torch.tensor([-1, 1 << 31 - 1], dtype=torch.int32))


@pytest.mark.parametrize("bad", BAD[1:])
@pytest.mark.parametrize(
    "name",
    [
        "vision_model.encoder.layers.1.ls1",
        "mlp1.1.weight",
        "language_model.model.tok_embeddings.weight",
        "language_model.model.layers.0.attention.wqkv.weight",
        "language_model.output.weight",
    ],
)
def test_a_tensor_is_refused_by_name_and_file_when_it_is_read(
    name: str, bad: float, editable: Path
) -> None:
    values = edit.tensors(editable)[name]
    values.view(-1)[-1] = bad
    edit.edit_tensors(editable, {name: values})
    with open_checkpoint(editable) as checkpoint:
        with pytest.raises(CheckpointError, match=rf"model\.safetensors: tensor {name} holds NaN"):
            checkpoint.weights.tensor(name)
        checkpoint.weights.tensor("language_model.model.norm.weight")


def test_what_fp16_cannot_hold_is_refused_with_the_way_out() -> None:
    large = torch.tensor([1.0, -70000.0], dtype=torch.bfloat16)
    with pytest.raises(
        CheckpointError, match=r"tensor w has a value of 70144, .*model\.dtype to bf"
    ):
        to_dtype("w", large, torch.float16)
    assert to_dtype("w", large, torch.float32).dtype == torch.float32
    assert to_dtype("w", torch.tensor([65504.0]), torch.float16).isfinite().all()
