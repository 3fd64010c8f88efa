"""A prefix that rows share is computed once and changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.models.language.sequences import NAMES, TOLERANCE, WINDOWED, sequence
from tests.models.loaded import load
from vlmc.models.language import reference_loop
from vlmc.models.language.decoder import Decoder
from vlmc.models.language.reference_loop import Prefilled, Sampling, can_share, generate, prefill

Folder = Callable[[str], Path]
NO_STOP = -1


def rows_of(decoder: Decoder, shared: int, rests: Sequence[int]) -> list[Tensor]:
    """Prompts with a common prefix of `shared` tokens and an own rest each."""
    prefix = sequence(decoder, shared)
    return [
        torch.cat([prefix, sequence(decoder, rest, 1 + index)]) for index, rest in enumerate(rests)
    ]


def computed_tokens(decoder: Decoder, run: Callable[[], Prefilled]) -> tuple[Prefilled, int]:
    """What `run` returns, and how many tokens went through the decoder for it."""
    counts: list[int] = []
    hook = decoder.register_forward_pre_hook(
        lambda _, arguments: counts.append(arguments[0].shape[:2].numel())
    )
    try:
        return run(), sum(counts)
    finally:
        hook.remove()


@pytest.mark.parametrize(
    ("shared", "rests"), [(24, (3, 9, 1)), (530, (4, 7)), (300, (240, 214)), (500, (5, 12))]
)
@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_sharing_changes_nothing(
    name: str, shared: int, rests: tuple[int, ...], miniatures: Folder
) -> None:
    decoder = load(miniatures(name)).decoder
    rows = rows_of(decoder, shared, rests)
    lengths = torch.tensor([len(row) for row in rows])
    unshared = prefill(decoder, rows, 0, reserve_tokens=6)
    found, tokens = computed_tokens(
        decoder, lambda: prefill(decoder, rows, shared, reserve_tokens=6)
    )
    torch.testing.assert_close(found.logits, unshared.logits, rtol=0, atol=TOLERANCE)
    for index, row in enumerate(rows):
        alone = prefill(decoder, [row], 0, reserve_tokens=0)
        torch.testing.assert_close(found.logits[index], alone.logits[0], rtol=0, atol=TOLERANCE)
    if can_share(decoder, lengths, shared):
        assert tokens == shared + len(rows) * max(rests)
    else:
        assert tokens == len(rows) * (shared + max(rests))
    sampling = Sampling(6)
    assert generate(decoder, found, sampling, NO_STOP) == generate(
        decoder, unshared, sampling, NO_STOP
    )


@pytest.mark.parametrize(
    ("name", "lengths", "expected"),
    [
        ("qwen2-300m", (10, 5000), True),
        ("llama-yi-6b", (10, 5000), True),
        ("internlm2-300m", (10, 32768), True),
        ("internlm2-300m", (10, 32769), False),
        ("internlm2-300m-ntk", (510, 512), True),
        ("internlm2-300m-ntk", (512, 513), False),
        ("internlm2-300m-ntk", (600, 601), False),
        ("phi3-300m", (510, 512), True),
        ("phi3-300m", (512, 513), False),
        ("phi3-300m", (513, 9000), True),
    ],
)
def test_which_lengths_share(
    name: str, lengths: tuple[int, ...], expected: bool, miniatures: Folder
) -> None:
    decoder = load(miniatures(name)).decoder
    assert can_share(decoder, torch.tensor(lengths), 8) is expected
    assert not can_share(decoder, torch.tensor(lengths), 0)


@pytest.mark.parametrize("name", WINDOWED)
@torch.inference_mode()
def test_sharing_across_the_window_would_be_wrong(
    name: str, miniatures: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = load(miniatures(name)).decoder
    rows = rows_of(decoder, 500, (5, 30))
    right = prefill(decoder, rows, 500, reserve_tokens=0).logits
    monkeypatch.setattr(reference_loop, "can_share", lambda *_: True)
    wrong = prefill(decoder, rows, 500, reserve_tokens=0).logits
    assert (right[1] - wrong[1]).abs().max() > 100 * TOLERANCE
