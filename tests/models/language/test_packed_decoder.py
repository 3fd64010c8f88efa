"""Packed steps over pages compute what the reference decoder computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.models.language.sequences import NAMES, TOLERANCE, sequence
from tests.models.loaded import load
from vlmc.models.language.decoder import Decoder
from vlmc.models.language.packed_batch import Row, pack
from vlmc.models.language.packed_decoder import PackedDecoder
from vlmc.models.language.paged_cache import PAGE_TOKENS, PagedCache, pages_for
from vlmc.models.language.reference_loop import prefill

Folder = Callable[[str], Path]
CPU = torch.device("cpu")


def packed_of(decoder: Decoder, pages: int = 256) -> PackedDecoder:
    weight = decoder.embed_tokens.weight
    cache = PagedCache(decoder.config, pages, dtype=weight.dtype, device=weight.device)
    cache.keys.fill_(float("nan"))  # whoever reads what was not written, shows
    cache.values.fill_(float("nan"))
    return PackedDecoder(decoder, cache)


def scattered(lengths: list[int]) -> list[list[int]]:
    """Pages for rows of these lengths, no two in order."""
    order = torch.randperm(256, generator=torch.Generator().manual_seed(1)).tolist()
    found = []
    for length in lengths:
        found.append([order.pop() for _ in range(pages_for(length))])
    return found


def step(packed: PackedDecoder, rows: list[Row], states: list[Tensor]) -> Tensor:
    return packed.logits(packed.forward(torch.cat(states), pack(rows, CPU)))


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_prompts_in_one_step(name: str, miniatures: Folder) -> None:
    decoder = load(miniatures(name)).decoder
    packed = packed_of(decoder)
    prompts = [sequence(decoder, length, length) for length in (1, 40, 16, 533)]
    pages = scattered([len(prompt) for prompt in prompts])
    rows = [Row(0, len(p), len(p), own) for p, own in zip(prompts, pages, strict=True)]
    found = step(packed, rows, prompts)
    for index, prompt in enumerate(prompts):
        expected = prefill(decoder, [prompt], 0, reserve_tokens=0).logits[0]
        torch.testing.assert_close(found[index], expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_pieces_and_decoding_beside_prompts(name: str, miniatures: Folder) -> None:
    """A prompt in two pieces, while another decodes and a third begins."""
    decoder = load(miniatures(name)).decoder
    packed = packed_of(decoder)
    long, short, third = (sequence(decoder, n, n) for n in (70, 23, 18))
    token = sequence(decoder, 1, 7)
    pages = scattered([len(long), len(short) + PAGE_TOKENS, len(third)])
    step(
        packed,
        [Row(0, 33, 70, pages[0]), Row(0, 23, 23, pages[1])],
        [long[:33], short],
    )
    found = step(
        packed,
        [Row(23, 1, 24, pages[1]), Row(33, 37, 70, pages[0]), Row(0, 18, 18, pages[2])],
        [token, long[33:], third],
    )
    start = prefill(decoder, [short], 0, reserve_tokens=1)
    decoded = decoder.logits(decoder(token[None], start.cache)[:, -1])[0]
    expected = [decoded] + [
        prefill(decoder, [prompt], 0, reserve_tokens=0).logits[0] for prompt in (long, third)
    ]
    for index, one in enumerate(expected):
        torch.testing.assert_close(found[index], one, rtol=0, atol=TOLERANCE)


def test_rows_with_one_token_come_first() -> None:
    with pytest.raises(ValueError, match="come first"):
        pack([Row(0, 2, 2, [0]), Row(5, 1, 6, [1])], CPU)
