"""Logits that are not finite, and ids beyond the tokenizer, in the reference loop."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch

from tests.models.loaded import load
from tests.padded import padded
from vlmc.models.language.decoder import Decoder
from vlmc.models.language.reference_loop import (
    Prefilled,
    Sampling,
    generate,
    not_finite_error,
    prefill,
    score,
)

NO_STOP = -5


def started(decoder: Decoder, count: int) -> Prefilled:
    generator = torch.Generator().manual_seed(1)
    rows = [
        torch.randn(7, decoder.config.hidden_size, generator=generator) / 8 for _ in range(count)
    ]
    return prefill(decoder, rows, 0, reserve_tokens=8)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@torch.inference_mode()
def test_one_row_fails_and_the_others_answer(
    bad: float, temperature: float, miniature: Path
) -> None:
    decoder, sampling = load(miniature).decoder, Sampling(4, temperature, 3)
    expected = generate(decoder, started(decoder, 3), sampling, NO_STOP)
    start = started(decoder, 3)
    start.logits[1, 600] = bad
    found = generate(decoder, start, sampling, NO_STOP)
    assert found == [expected[0], (), expected[2]]
    start = started(decoder, 3)
    whole = score(decoder, start, [(7,), (9, 12)])
    start = started(decoder, 3)
    start.logits[1, 600] = bad
    scores = score(decoder, start, [(7,), (9, 12)])
    assert scores[1].isnan().all()
    assert torch.equal(scores[[0, 2]], whole[[0, 2]])


@torch.inference_mode()
def test_a_later_step_fails_the_row(miniature: Path) -> None:
    decoder = deepcopy(load(miniature).decoder)
    start = started(decoder, 2)
    first = start.logits.argmax(-1)
    assert first[0] != first[1]
    decoder.embed_tokens.weight[first[1]] = float("nan")
    found = generate(decoder, start, Sampling(4), NO_STOP)
    assert len(found[0]) == 4 and found[1] == ()
    scores = score(decoder, started(decoder, 2), [(int(first[1]), 3), (int(first[0]), 3)])
    assert scores[:, 0].isnan().all() and scores[:, 1].isfinite().all()


def test_the_error_says_what_to_do() -> None:
    assert "model.dtype bf16" in str(not_finite_error(torch.float16))
    assert "model.dtype" not in str(not_finite_error(torch.bfloat16))


@torch.inference_mode()
def test_activations_that_overflow_fp16_have_no_answer(miniature: Path) -> None:
    decoder = deepcopy(load(miniature, torch.float16).decoder)
    decoder.layers[0].mlp.down_proj.weight.fill_(60000.0)  # finite in fp16, the sums are not
    rows = [torch.ones(5, decoder.config.hidden_size, dtype=torch.float16)]
    start = prefill(decoder, rows, 0, reserve_tokens=4)
    assert generate(decoder, start, Sampling(4), NO_STOP) == [()]


@torch.inference_mode()
def test_ids_beyond_the_tokenizer_are_never_chosen(
    miniatures: Callable[[str], Path], tmp_path: Path
) -> None:
    source = miniatures("internlm2-300m")
    plain = load(source).decoder
    wide = load(padded(source, tmp_path / "padded", 24)).decoder
    whole = started(wide, 12).logits
    assert whole.shape[-1] == plain.config.vocab_size + 24
    assert (whole.argmax(-1) >= plain.config.vocab_size).any(), "else this shows nothing"
    wide.tokens = plain.config.vocab_size
    for sampling in (Sampling(4), Sampling(4, 2.0, 5)):
        found = generate(wide, started(wide, 12), sampling, NO_STOP)
        assert found == generate(plain, started(plain, 12), sampling, NO_STOP)
    choices = [(7,), (9, 12), (30, 2, 4)]
    torch.testing.assert_close(
        score(wide, started(wide, 2), choices), score(plain, started(plain, 2), choices)
    )
