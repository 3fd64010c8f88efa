"""However a sequence is run, whole, in pieces, beside others or packed, it computes the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.models.language.sequences import NAMES, TOLERANCE, WINDOWED, sequence
from tests.models.loaded import load
from vlmc.models.language.decoder import Decoder
from vlmc.models.language.kv_cache import KVCache

Folder = Callable[[str], Path]


def new_cache(decoder: Decoder, rows: int, capacity: int) -> KVCache:
    return KVCache(decoder.config, rows, capacity, dtype=torch.float32, device="cpu")


def pad(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows right-padded with large numbers, so that a leak shows, and their lengths."""
    padded = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=50.0)
    return padded, torch.tensor([len(row) for row in rows])


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("tokens", [40, 600])
@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_prompt_in_pieces_is_the_whole(name: str, tokens: int, miniatures: Folder) -> None:
    decoder = load(miniatures(name)).decoder
    embedded = sequence(decoder, tokens)[None]
    whole = decoder(embedded)
    cache = new_cache(decoder, 1, tokens)
    close(decoder(embedded, new_cache(decoder, 1, tokens)), whole)
    pieces = [
        decoder(piece, cache, total_lengths=torch.tensor([tokens]))
        for piece in torch.split(embedded, [1, 7, 20, tokens - 28], dim=1)
    ]
    close(torch.cat(pieces, dim=1), whole)
    assert cache.lengths.tolist() == [tokens]


@pytest.mark.parametrize("lengths", [(5, 40, 23), (600, 30, 512, 513)])
@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_every_row_of_a_ragged_batch_is_as_alone(
    name: str, lengths: tuple[int, ...], miniatures: Folder
) -> None:
    decoder = load(miniatures(name)).decoder
    rows = [sequence(decoder, length, seed) for seed, length in enumerate(lengths)]
    padded, counts = pad(rows)
    together = new_cache(decoder, len(rows), max(lengths) + 3)
    states = decoder(padded, together, token_counts=counts)
    following = torch.stack([sequence(decoder, 3, 100 + index) for index in range(len(rows))])
    steps = torch.cat([decoder(step, together) for step in torch.split(following, 1, dim=1)], dim=1)
    for index, row in enumerate(rows):
        alone = new_cache(decoder, 1, len(row) + 3)
        close(states[index, : len(row)], decoder(row[None], alone)[0])
        for step in range(3):
            token = following[index : index + 1, step : step + 1]
            close(steps[index, step], decoder(token, alone)[0, 0])
    assert together.lengths.tolist() == [length + 3 for length in lengths]


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_ragged_rows_in_ragged_pieces(name: str, miniatures: Folder) -> None:
    decoder = load(miniatures(name)).decoder
    rows = [sequence(decoder, length, seed) for seed, length in enumerate((30, 12))]
    firsts, rests = [rows[0][:4], rows[1][:9]], [rows[0][4:], rows[1][9:]]
    total = torch.tensor([30, 12])
    cache = new_cache(decoder, 2, 40)
    for parts in (firsts, rests):
        padded, counts = pad(parts)
        states = decoder(padded, cache, token_counts=counts, total_lengths=total)
    for index, row in enumerate(rows):
        close(states[index, : len(rests[index])], decoder(row[None])[0, len(firsts[index]) :])


@pytest.mark.parametrize("name", WINDOWED)
@torch.inference_mode()
def test_tokens_after_a_prompt_rotate_as_if_they_came_one_by_one(
    name: str, miniatures: Folder
) -> None:
    decoder = load(miniatures(name)).decoder
    prompt, more = sequence(decoder, 505)[None], sequence(decoder, 16, 1)[None]
    at_once, one_by_one = new_cache(decoder, 1, 521), new_cache(decoder, 1, 521)
    for cache in (at_once, one_by_one):
        decoder(prompt, cache)
    expected = torch.cat([decoder(step, one_by_one) for step in torch.split(more, 1, dim=1)], dim=1)
    close(decoder(more, at_once), expected)
    # Were the last token's length to hold for all of them, the answer would be another.
    other = new_cache(decoder, 1, 521)
    decoder(prompt, other)
    differing = decoder(more, other, total_lengths=torch.tensor([521]))
    assert (differing - expected).abs().max() > 100 * TOLERANCE


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_packed_sequences_do_not_see_each_other(name: str, miniatures: Folder) -> None:
    decoder = load(miniatures(name)).decoder
    rows = [sequence(decoder, length, seed) for seed, length in enumerate((9, 14))]
    owner = torch.tensor([0] * 9 + [1] * 14)
    positions = torch.cat([torch.arange(9), torch.arange(14)])[None]
    causal = torch.ones(23, 23).tril().bool()
    mask = (causal & (owner[:, None] == owner))[None, None]
    states = decoder(torch.cat(rows)[None], positions=positions, mask=mask)[0]
    for row, found in zip(rows, torch.split(states, [9, 14]), strict=True):
        close(found, decoder(row[None])[0])


@pytest.mark.parametrize("name", WINDOWED)
@torch.inference_mode()
def test_given_positions_choose_the_rope_scaling(name: str, miniatures: Folder) -> None:
    """Attention depends on differences of positions, so far-off tokens act as near ones do, if
    they are rotated by the angles of the length that they reach."""
    decoder = load(miniatures(name)).decoder
    row = sequence(decoder, 12)[None]
    far = torch.arange(590, 602)[None]
    near = torch.arange(12)[None]
    expected = decoder(row, positions=near, total_lengths=torch.tensor([602]))
    torch.testing.assert_close(decoder(row, positions=far), expected, rtol=0, atol=2e-3)
    assert (decoder(row, positions=near) - expected).abs().max() > 2e-2


@torch.inference_mode()
def test_selected_rows_go_on_as_themselves(miniature: Path) -> None:
    decoder = load(miniature).decoder
    rows = [sequence(decoder, length, seed) for seed, length in enumerate((20, 6, 11))]
    padded, counts = pad(rows)
    cache = new_cache(decoder, 3, 21)
    decoder(padded, cache, token_counts=counts)
    before = cache.keys.clone()
    order = [1, 2, 1, 1]
    chosen = cache.select(torch.tensor(order), 13)  # less room than row 0 needs
    tokens = torch.stack([sequence(decoder, 1, 10 + index) for index in range(len(order))])
    found = decoder(tokens, chosen)
    for index, row in enumerate(order):
        whole = torch.cat([rows[row], tokens[index]])
        close(found[index, 0], decoder(whole[None])[0, -1])
    assert torch.equal(cache.keys, before)
    assert cache.lengths.tolist() == [20, 6, 11]


@torch.inference_mode()
def test_positions_and_mask_are_refused_beside_a_cache(miniature: Path) -> None:
    decoder = load(miniature).decoder
    embedded = sequence(decoder, 4)[None]
    with pytest.raises(ValueError, match="combined with a cache"):
        decoder(embedded, new_cache(decoder, 1, 8), positions=torch.arange(4)[None])
    with pytest.raises(ValueError, match="combined with a cache"):
        decoder(embedded, new_cache(decoder, 1, 8), mask=torch.ones(1, 1, 4, 4).bool())
