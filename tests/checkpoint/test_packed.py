"""Re-layouts of 4-bit linears, against formulas written out and tensors made by other readers."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import Tensor

from vlmc.checkpoint.packed import (
    awq_to_compressed,
    compressed_to_awq,
    compressed_to_gptq,
    gptq_to_compressed,
    pack,
    split_internlm2,
    split_rows,
    unpack,
)
from vlmc.errors import CheckpointError

OUTPUTS, INPUTS, GROUP = 48, 64, 32
GROUPS = INPUTS // GROUP


def integers() -> tuple[Tensor, Tensor, Tensor]:
    """q (out, in), z (out, groups), scales (out, groups) in fp16, every nibble among them."""
    generator = torch.Generator().manual_seed(5)
    q = torch.randint(0, 16, (OUTPUTS, INPUTS), generator=generator)
    z = torch.randint(0, 16, (OUTPUTS, GROUPS), generator=generator)
    z[:16, 0] = torch.arange(16)
    scales = torch.rand(OUTPUTS, GROUPS, generator=generator).half() + 0.01
    return q, z, scales


def weight(q: Tensor, z: Tensor, scales: Tensor) -> Tensor:
    group = torch.arange(INPUTS) // GROUP
    return (q - z[:, group]) * scales.float()[:, group]


def word(nibbles: list[int]) -> int:
    """Eight nibbles as a signed int32, the first lowest."""
    value = sum(nibble << 4 * place for place, nibble in enumerate(nibbles))
    return value - (1 << 32) if value >= 1 << 31 else value


def awq(q: Tensor, z: Tensor, scales: Tensor) -> dict[str, Tensor]:
    """AutoAWQ's GEMM layout, word by word."""
    order = (0, 2, 4, 6, 1, 3, 5, 7)

    def words(rows: Tensor) -> Tensor:  # (any, out)
        return torch.tensor(
            [
                [word([row[8 * c + o] for o in order]) for c in range(len(row) // 8)]
                for row in rows.tolist()
            ],
            dtype=torch.int32,
        )

    return {"qweight": words(q.T), "qzeros": words(z.T), "scales": scales.T.contiguous()}


def gptq(q: Tensor, z: Tensor, scales: Tensor, version: int) -> dict[str, Tensor]:
    """GPTQ's layout, word by word."""
    stored = (z - 1) % 16 if version == 1 else z

    def words(rows: Tensor) -> Tensor:
        return torch.tensor(
            [[word(row[c : c + 8]) for c in range(0, len(row), 8)] for row in rows.tolist()],
            dtype=torch.int32,
        )

    return {
        "qweight": words(q).T.contiguous(),
        "qzeros": words(stored.T),
        "scales": scales.T.contiguous(),
        "g_idx": (torch.arange(INPUTS) // GROUP).int(),
    }


def compressed_weight(linear: dict[str, Tensor]) -> Tensor:
    """compressed-tensors' formula, eight taken off both integers."""
    q = unpack(linear["weight_packed"]).long() - 8
    z = torch.zeros_like(linear["weight_scale"], dtype=torch.int64)
    if "weight_zero_point" in linear:
        z = unpack(linear["weight_zero_point"].T).T.long() - 8
    return weight(q, z, linear["weight_scale"])


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert sorted(found) == sorted(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name
        assert found[name].is_contiguous(), name


def test_packing_takes_the_lowest_bits_first() -> None:
    nibbles = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 15, 0, 0, 0, 0, 0, 0, 0, 8]], dtype=torch.uint8)
    words = torch.tensor([[word([1, 2, 3, 4, 5, 6, 7, 15]), -(1 << 31)]], dtype=torch.int32)
    assert torch.equal(pack(nibbles), words)
    assert torch.equal(unpack(words), nibbles)


def test_awq_and_back() -> None:
    original = awq(*integers()) | {"bias": torch.randn(OUTPUTS).half()}
    found = awq_to_compressed(original)
    assert torch.equal(compressed_weight(found), weight(*integers()))
    assert found["weight_shape"].tolist() == [OUTPUTS, INPUTS]
    same(compressed_to_awq(found), original)


@pytest.mark.parametrize("version", [1, 2])
def test_gptq_and_back(version: int) -> None:
    original = gptq(*integers(), version)
    found = gptq_to_compressed(original, version=version, symmetric=False)  # type: ignore[arg-type]
    assert torch.equal(compressed_weight(found), weight(*integers()))
    same(compressed_to_gptq(found, version=version), original)  # type: ignore[arg-type]


@pytest.mark.parametrize("version", [1, 2])
def test_symmetric_gptq_has_no_zero_points(version: int) -> None:
    q, _, scales = integers()
    z = torch.full((OUTPUTS, GROUPS), 8)
    original = gptq(q, z, scales, version)
    assert original["qzeros"][0, 0] == word([8 - (version == 1)] * 8)
    found = gptq_to_compressed(original, version=version, symmetric=True)  # type: ignore[arg-type]
    assert "weight_zero_point" not in found
    assert torch.equal(compressed_weight(found), weight(q, z, scales))
    same(compressed_to_gptq(found, version=version), original)  # type: ignore[arg-type]
    same(compressed_to_awq(found), awq(q, z, scales))


@pytest.mark.skipif(
    importlib.util.find_spec("compressed_tensors") is None, reason="needs compressed-tensors"
)
def test_compressed_tensors_reads_the_same_integers() -> None:
    from compressed_tensors.compressors.pack_quantized.helpers import (
        pack_to_int32,
        unpack_from_int32,
    )

    q, z, scales = integers()
    found = awq_to_compressed(awq(q, z, scales))
    assert torch.equal(pack_to_int32((q - 8).to(torch.int8), 4), found["weight_packed"])
    read = unpack_from_int32(found["weight_packed"], 4, torch.Size(q.shape))
    zeros = unpack_from_int32(found["weight_zero_point"], 4, torch.Size(z.shape), packed_dim=0)
    assert torch.equal(read.long() + 8, q)
    assert torch.equal(zeros.long() + 8, z)


def test_internlm2_splits_into_heads() -> None:
    q, z, scales = integers()
    whole = awq_to_compressed(awq(q, z, scales))
    parts = split_internlm2(whole, kv_heads=2, head_dim=8)  # a query, a key, a value for each
    rows = weight(q, z, scales).view(2, 3, 8, INPUTS)
    for place, name in enumerate(("q_proj", "k_proj", "v_proj")):
        assert torch.equal(compressed_weight(parts[name]), rows[:, place].flatten(0, 1)), name
        assert parts[name]["weight_shape"].tolist() == [16, INPUTS]
    found = split_rows(whole, torch.arange(11, 3, -1))
    assert torch.equal(compressed_weight(found), weight(q, z, scales)[4:12].flip(0))


def test_act_order_is_refused() -> None:
    original = gptq(*integers(), 1)
    original["g_idx"] = original["g_idx"].flip(0)
    with pytest.raises(CheckpointError, match=r"layers\.0\.o_proj\.g_idx.*act-order"):
        gptq_to_compressed(original, version=1, symmetric=False, name="layers.0.o_proj")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scales": torch.full((GROUPS, OUTPUTS), torch.nan)}, "scales holds NaN"),
        ({"scales": torch.ones(3, OUTPUTS)}, "64 inputs and 3 groups"),
        ({"scales": torch.ones(GROUPS, 40)}, r"shape \[2, 40\], expected \[2, 48\]"),
        ({"qzeros": torch.zeros(1, 6, dtype=torch.int32)}, r"qzeros has shape \[1, 6\]"),
        ({"qzeros": torch.zeros(2, 6, dtype=torch.int64)}, "qzeros is torch.int64"),
        ({"qweight": torch.ones(64, 6)}, "qweight is torch.float32"),
        ({"qweight": torch.ones(6, dtype=torch.int32)}, "expected a table"),
    ],
)
def test_tensors_that_disagree_are_refused(change: dict[str, Tensor], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        awq_to_compressed(awq(*integers()) | change)


def test_what_is_missing_or_not_symmetric_is_named() -> None:
    original = gptq(*integers(), 1)
    with pytest.raises(CheckpointError, match="says that it is symmetric"):
        gptq_to_compressed(original, version=1, symmetric=True)
    del original["qzeros"]
    with pytest.raises(CheckpointError, match="has no qzeros; it holds g_idx, qweight, scales"):
        gptq_to_compressed(original, version=1, symmetric=True)


def test_scales_beyond_half_precision_cannot_be_exported() -> None:
    linear = awq_to_compressed(awq(*integers()))
    linear["weight_scale"] = linear["weight_scale"].bfloat16() * 1e6
    with pytest.raises(CheckpointError, match="fp16 cannot hold"):
        compressed_to_awq(linear)
