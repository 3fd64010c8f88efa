"""fp8 weights: a scale for each output, and only where the recipe quantizes."""

from __future__ import annotations

import pytest
import torch

from vlmc.compile.language.fp8 import fp8_tensors, to_fp8

WEIGHT = torch.tensor([[448.0, -224.0, 3.0], [0.001, -0.002, 0.0], [0.0, 0.0, 0.0]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_output_has_its_own_scale(dtype: torch.dtype) -> None:
    weight = WEIGHT.to(dtype)
    values, scale = to_fp8(weight)
    assert (values.dtype, scale.dtype, scale.shape) == (torch.float8_e4m3fn, dtype, (3, 1))
    assert scale[:2, 0].tolist() == pytest.approx([1, 0.002 / 448], rel=1e-2)
    assert values[1].float().tolist() == pytest.approx([224, -448, 0], rel=0.04)
    assert values[2].float().tolist() == [0, 0, 0]
    torch.testing.assert_close(values.float() * scale.float(), weight.float(), rtol=0.07, atol=0)


def test_what_is_not_named_stays_as_it_is() -> None:
    given = [(f"{name}.weight", WEIGHT) for name in ("a", "b")] + [("a.bias", WEIGHT[0])]
    found = dict(fp8_tensors(given, {"a"}))
    assert list(found) == ["a.weight", "a.weight_scale", "b.weight", "a.bias"]
    assert found["a.weight"].dtype == torch.float8_e4m3fn
    assert found["b.weight"] is WEIGHT
