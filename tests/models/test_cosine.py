"""The cosine that engines are judged by."""

from __future__ import annotations

import pytest
import torch

from vlmc.models.cosine import cosine, tile_cosines


def test_each_tile_is_compared_by_itself() -> None:
    expected = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0))
    found = expected * torch.tensor([2.0, -1.0, 1.0])[:, None, None]
    found[2, 1, 3] += 1.0
    first, second, third = tile_cosines(found.half(), expected).tolist()
    assert first == pytest.approx(1.0, abs=1e-6)
    assert second == pytest.approx(-1.0, abs=1e-6)
    assert 0.9 < third < 0.999


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_a_number_is_the_worst(value: float) -> None:
    expected = torch.ones(2, 4, 8)
    found = expected.clone()
    found[1, 0, 0] = value
    assert tile_cosines(found, expected).tolist() == [pytest.approx(1.0), -1.0]
    assert cosine(torch.zeros(4), torch.ones(4)) == -1.0


def test_tiles_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="zip"):
        tile_cosines(torch.ones(2, 4, 8), torch.ones(3, 4, 8))
