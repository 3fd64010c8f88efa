"""The language model's input: token embeddings with image features in their places."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def splice(
    table: Tensor,
    ids: Sequence[int],
    image_token_id: int,
    features: Sequence[Tensor],
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Embeddings (tokens, hidden) of `ids` from `table` (vocabulary, hidden), with image tokens
    overwritten, in order, by `features`, each (256 · tiles, hidden).

    All of it in `dtype`, which is the table's if it is not given.
    """
    tokens = torch.tensor(ids, device=table.device)
    embedded = functional.embedding(tokens, table).to(dtype or table.dtype)
    if features:
        embedded[tokens == image_token_id] = torch.cat(list(features)).to(embedded.dtype)
    return embedded
