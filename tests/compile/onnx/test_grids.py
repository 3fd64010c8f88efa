"""The 8-bit grids: what is stored, and where it saturates."""

from __future__ import annotations

import pytest
import torch

from vlmc.compile.onnx.grids import GRIDS, Grid

WEIGHT = torch.tensor([[1.0, -3.0, 0.5], [0.0, 0.0, 0.0], [7.0, 2.0, -1.0]])


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_every_output_has_a_scale_by_its_largest_magnitude(grid: Grid) -> None:
    scale = grid.weight_scale(WEIGHT, torch.float32)
    assert scale.shape == (3, 1)
    assert scale[:, 0].tolist() == pytest.approx([3 / grid.limit, 2**-24, 7 / grid.limit])
    found = grid.fake(WEIGHT, scale)
    torch.testing.assert_close(found, WEIGHT, rtol=0, atol=7 / 16)
    assert found[0, 1] == pytest.approx(-3) and found[2, 0] == pytest.approx(7)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_inputs_saturate_at_the_clip(grid: Grid) -> None:
    scale = grid.activation_scale(2.0, torch.float32)
    found = grid.fake(torch.tensor([-9.0, 0.0, 2.0, 9.0]), scale)
    assert found[1:].tolist() == pytest.approx([0, 2, 2])
    assert found[0] == pytest.approx(-2, rel=0.01)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_scales_in_fp16_are_rounded_up(grid: Grid) -> None:
    exact = grid.weight_scale(WEIGHT, torch.float32)
    typed = grid.weight_scale(WEIGHT, torch.float16)
    assert typed.dtype == torch.float16
    assert (typed.float() >= exact).all() and (typed.float() <= exact * 1.001 + 2**-24).all()
