"""Run every kernel of a packed decoder once, so that none is compiled while a request waits."""

from __future__ import annotations

import torch

from vlmc.models.language.packed_batch import WHOLE_TOKENS, Row, pack
from vlmc.models.language.packed_decoder import PackedDecoder
from vlmc.models.language.paged_cache import PAGE_TOKENS, pages_for

WARMUP_PAGES = pages_for(WHOLE_TOKENS)
"""Pages of the cache that a warm-up writes to, where there are as many."""
_SHORT_TOKENS = 40
# Rows of one token: their number decides into how many parts the keys are split.
_DECODE_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


def warm_up(packed: PackedDecoder) -> None:
    """Run a step of each kind: rows that decode, short and long prompts, and a continued one.

    It writes to the first pages of the cache, which no sequence may hold yet.
    """
    weight = packed.decoder.embed_tokens.weight
    pages = list(range(min(packed.cache.pages, WARMUP_PAGES)))
    room = len(pages) * PAGE_TOKENS
    short, whole = min(_SHORT_TOKENS, room), min(WHOLE_TOKENS, room)
    one = Row(0, 1, 1, pages[:1])
    steps = [[one] * rows for rows in _DECODE_ROWS]
    steps += [
        [Row(0, short, short, pages)],
        [Row(0, whole, whole, pages)],
        [one, Row(PAGE_TOKENS, short - PAGE_TOKENS, short, pages), Row(0, whole, whole, pages)],
    ]
    with torch.inference_mode():
        for rows in steps:
            batch = pack(rows, weight.device)
            states = weight.new_zeros(batch.tokens, weight.shape[1])
            packed.logits(packed.forward(states, batch))
    if weight.is_cuda:
        torch.cuda.synchronize(weight.device)
