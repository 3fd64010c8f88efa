"""Insert image features into token embeddings."""

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
    """Embed tokens, and replace the image tokens, in order, by image features.

    Args:
        table: embedding table (vocabulary, hidden).
        ids: token ids of the prompt.
        image_token_id: the id of image tokens.
        features: features of each image, (256 · tiles, hidden).
        dtype: dtype of the result; default the table's.

    Returns:
        (tokens, hidden).
    """
    tokens = torch.tensor(ids, device=table.device)
    embedded = functional.embedding(tokens, table).to(dtype or table.dtype)
    if features:
        embedded[tokens == image_token_id] = torch.cat(list(features)).to(embedded.dtype)
    return embedded
