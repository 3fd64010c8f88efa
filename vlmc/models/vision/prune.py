"""Fewer visual tokens of a tile, chosen by diversity."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def prune_tokens(features: Tensor, keep: int) -> Tensor:
    """The `keep` tokens of each tile that are least alike, in their order.

    Greedy max-min diversity, as in DivPrune (Alvar et al., CVPR 2025): first the token that is
    farthest from its nearest other, then always the one that is farthest from all that were
    chosen, by cosine distance. The shape depends on `keep` alone.

    Args:
        features: (tiles, tokens, hidden).
        keep: 1 ≤ keep ≤ tokens.

    Returns:
        (tiles, keep, hidden), of the same dtype; `features` itself where all are kept.
    """
    tiles, tokens, _ = features.shape
    if keep == tokens:
        return features
    unit = functional.normalize(features.float(), dim=-1)
    distance = 1 - unit @ unit.transpose(1, 2)
    others = distance + torch.eye(tokens, device=features.device) * 4  # more than any distance
    each = torch.arange(tiles, device=features.device)
    chosen = torch.zeros(tiles, tokens, dtype=torch.bool, device=features.device)
    best = others.amin(-1).argmax(-1)
    nearest = distance[each, best]
    chosen[each, best] = True
    for _ in range(keep - 1):
        best = nearest.masked_fill(chosen, -1).argmax(-1)
        nearest = torch.minimum(nearest, distance[each, best])
        chosen[each, best] = True
    return features[chosen].view(tiles, keep, -1)


def prune_image(features: Tensor, tiles: int, keep: int) -> Tensor:
    """`prune_tokens` of an image's features (tiles · tokens, hidden) → (tiles · keep, hidden)."""
    return prune_tokens(features.view(tiles, -1, features.shape[-1]), keep).flatten(0, 1)
