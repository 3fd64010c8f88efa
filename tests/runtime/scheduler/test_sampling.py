"""Draws at a temperature: from the likeliest tokens, by the request's own seed."""

from __future__ import annotations

import pytest
import torch

from vlmc.runtime.scheduler.sampling import draw
from vlmc.runtime.scheduler.sequence import LiveSequence, Sampling

LOGITS = torch.tensor([0.2, 0.5, 0.3]).log()


def drawn(**options: float) -> list[int]:
    """A draw by each of 200 seeds."""
    found = []
    for seed in range(200):
        work = Sampling(1, seed=seed, **{"temperature": 1.0, **options})
        found.append(draw(LOGITS, LiveSequence((1,), (), work, lambda result, spent: None)))
    return found


@pytest.mark.parametrize(
    ("top_p", "kept"), [(1.0, {0, 1, 2}), (0.9, {0, 1, 2}), (0.6, {1, 2}), (0.4, {1}), (1e-9, {1})]
)
def test_top_p_keeps_the_token_that_reaches_it(top_p: float, kept: set[int]) -> None:
    assert set(drawn(top_p=top_p)) == kept


def test_draws_follow_the_temperature() -> None:
    assert drawn().count(1) / 200 == pytest.approx(0.5, abs=0.12)
    assert drawn(temperature=0.01) == [1] * 200
    assert drawn() == drawn()


def test_each_draw_of_a_request_is_another() -> None:
    one = LiveSequence((1,), (), Sampling(1, 1.0), lambda result, spent: None)
    assert len({draw(LOGITS, one) for _ in range(50)}) == 3
