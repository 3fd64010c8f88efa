"""Which visual tokens are kept: the least alike, in their order."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from vlmc.models.vision.prune import prune_tokens


def drawn(tiles: int, tokens: int, seed: int = 0) -> Tensor:
    return torch.randn(tiles, tokens, 8, generator=torch.Generator().manual_seed(seed))


def least_distance(tokens: Tensor) -> float:
    unit = functional.normalize(tokens, dim=-1)
    pairs = itertools.combinations(range(len(tokens)), 2)
    return min(float(1 - unit[a] @ unit[b]) for a, b in pairs)


def by_hand(tokens: Tensor, keep: int) -> list[int]:
    """The same choice with loops over single tokens."""
    unit = functional.normalize(tokens, dim=-1)
    count = len(tokens)
    distance = [[float(1 - unit[a] @ unit[b]) for b in range(count)] for a in range(count)]
    nearest = [min(distance[a][b] for b in range(count) if b != a) for a in range(count)]
    chosen = [max(range(count), key=nearest.__getitem__)]
    while len(chosen) < keep:
        left = [a for a in range(count) if a not in chosen]
        chosen.append(max(left, key=lambda a: min(distance[a][b] for b in chosen)))
    return sorted(chosen)


@pytest.mark.parametrize("keep", [1, 2, 7, 15, 16])
def test_the_most_diverse_tokens_in_their_order(keep: int) -> None:
    features = drawn(3, 16)
    kept = prune_tokens(features, keep)
    for tile, found in zip(features, kept, strict=True):
        assert torch.equal(found, tile[by_hand(tile, keep)])


def test_every_tile_is_chosen_by_itself() -> None:
    features = drawn(4, 32)
    alone = torch.cat([prune_tokens(tile[None], 20) for tile in features])
    assert torch.equal(prune_tokens(features, 20), alone)


def test_of_doubles_one_is_kept() -> None:
    features = drawn(1, 8).repeat_interleave(2, dim=1)
    assert torch.equal(prune_tokens(features, 8), drawn(1, 8))


def test_it_is_more_diverse_than_any_beginning() -> None:
    tile = drawn(1, 24)[0]
    assert least_distance(prune_tokens(tile[None], 6)[0]) > least_distance(tile[:6])


def test_all_are_kept_as_they_are() -> None:
    features = drawn(1, 8).half()
    assert prune_tokens(features, 8) is features
    assert prune_tokens(features, 5).dtype == torch.float16
