"""Scores of choices, sampling, and where an answer ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.models.language.sequences import NAMES, TOLERANCE, WINDOWED, sequence
from tests.models.loaded import load
from vlmc.models.language.decoder import Decoder
from vlmc.models.language.kv_cache import KVCache
from vlmc.models.language.reference_loop import Prefilled, Sampling, generate, prefill, score

Folder = Callable[[str], Path]
CHOICES = [(7,), (7, 8), (30, 12, 5, 9), (12,), (30, 12, 6)]
NO_STOP = -1


def whole_score(decoder: Decoder, prompt: Tensor, choice: tuple[int, ...]) -> float:
    """Sum of log-softmax of one forward call over prompt and choice."""
    tokens = torch.cat([prompt, decoder.embed_tokens(torch.tensor(choice))])
    following = decoder.logits(decoder(tokens[None])[0]).double().log_softmax(-1)
    places = range(len(prompt) - 1, len(tokens) - 1)
    return sum(float(following[place, token]) for place, token in zip(places, choice, strict=True))


def stepwise_score(decoder: Decoder, prompt: Tensor, choice: tuple[int, ...]) -> float:
    """The same, with the choice's tokens one by one after the prompt, as generation has them."""
    start = prefill(decoder, [prompt], 0, reserve_tokens=len(choice))
    total, logits = 0.0, start.logits
    for token in choice:
        total += float(logits.double().log_softmax(-1)[0, token])
        states = decoder(decoder.embed_tokens(torch.tensor([[token]])), start.cache)
        logits = decoder.logits(states[:, -1])
    return total


@pytest.mark.parametrize("choices", [CHOICES, CHOICES[:1], [(3,), (4,)]])
@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_scores_are_those_of_whole_forward_calls(
    name: str, choices: list[tuple[int, ...]], miniatures: Folder
) -> None:
    decoder = load(miniatures(name)).decoder
    prefix = sequence(decoder, 20)
    rows = [torch.cat([prefix, sequence(decoder, length, length)]) for length in (4, 11)]
    found = score(decoder, prefill(decoder, rows, 20, reserve_tokens=0), choices)
    expected = [[whole_score(decoder, row, choice) for choice in choices] for row in rows]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("tokens", [510, 600])
@pytest.mark.parametrize("name", WINDOWED)
@torch.inference_mode()
def test_scores_at_and_beyond_the_window_are_those_of_generation(
    name: str, tokens: int, miniatures: Folder
) -> None:
    decoder = load(miniatures(name)).decoder
    prompt = sequence(decoder, tokens)
    found = score(decoder, prefill(decoder, [prompt], 0, reserve_tokens=0), CHOICES)[0]
    expected = torch.tensor([stepwise_score(decoder, prompt, choice) for choice in CHOICES])
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)


@torch.inference_mode()
def test_scores_leave_the_prompts_cache_alone(miniature: Path) -> None:
    decoder = load(miniature).decoder
    start = prefill(decoder, [sequence(decoder, 9)], 0, reserve_tokens=0)
    keys, lengths = start.cache.keys.clone(), start.cache.lengths.clone()
    score(decoder, start, CHOICES)
    assert torch.equal(start.cache.keys, keys)
    assert torch.equal(start.cache.lengths, lengths)


def started(decoder: Decoder, lengths: tuple[int, ...], reserve_tokens: int) -> Prefilled:
    rows = [sequence(decoder, length, length) for length in lengths]
    return prefill(decoder, rows, 0, reserve_tokens=reserve_tokens)


@torch.inference_mode()
def test_sampling_repeats_with_its_seed_and_not_with_another(miniature: Path) -> None:
    decoder = load(miniature).decoder
    answers = [
        generate(decoder, started(decoder, (9,), 12), Sampling(12, 1.0, seed), NO_STOP)
        for seed in (3, 3, 4)
    ]
    assert answers[0] == answers[1] != answers[2]


@torch.inference_mode()
def test_a_draw_does_not_depend_on_the_batch(miniature: Path) -> None:
    decoder = load(miniature).decoder
    sampling = Sampling(8, 0.8, 5)
    together = generate(decoder, started(decoder, (9, 4, 17), 8), sampling, NO_STOP)
    for answer, length in zip(together, (9, 4, 17), strict=True):
        assert generate(decoder, started(decoder, (length,), 8), sampling, NO_STOP) == [answer]


@torch.inference_mode()
def test_hardly_any_temperature_is_greedy(miniature: Path) -> None:
    decoder = load(miniature).decoder
    cold = generate(decoder, started(decoder, (9, 4), 8), Sampling(8, 1e-5, 1), NO_STOP)
    assert cold == generate(decoder, started(decoder, (9, 4), 8), Sampling(8), NO_STOP)


@torch.inference_mode()
def test_draws_follow_the_tempered_distribution(miniature: Path) -> None:
    decoder = load(miniature).decoder
    chances = torch.tensor([0.5, 0.3, 0.15, 0.05])
    cache = KVCache(decoder.config, 1, 1, dtype=torch.float32, device="cpu")
    start = Prefilled(cache, 2.0 * chances.log()[None], shared=0)
    drawn = [
        generate(decoder, start, Sampling(1, 2.0, seed), NO_STOP)[0][0] for seed in range(2000)
    ]
    frequencies = torch.bincount(torch.tensor(drawn), minlength=4) / len(drawn)
    # Four standard deviations of a fair draw are at most 0.045.
    torch.testing.assert_close(frequencies, chances, rtol=0, atol=0.045)


@torch.inference_mode()
def test_a_row_ends_with_its_stop_token_while_others_go_on(miniature: Path) -> None:
    decoder = load(miniature).decoder
    free = generate(decoder, started(decoder, (9, 4), 10), Sampling(10), NO_STOP)
    stop = next(token for token in free[0] if token not in free[1])
    end = free[0].index(stop) + 1
    found = generate(decoder, started(decoder, (9, 4), 10), Sampling(10), stop)
    assert found == [free[0][:end], free[1]]
    assert end < 10


@torch.inference_mode()
def test_nothing_is_computed_after_the_last_row_has_stopped(miniature: Path) -> None:
    """It would cost time and change no answer."""
    decoder = load(miniature).decoder
    start = started(decoder, (9,), 10)
    (free,) = generate(decoder, start, Sampling(10), NO_STOP)
    stop = free[1]
    steps: list[object] = []
    handle = decoder.register_forward_hook(lambda *call: steps.append(call))
    try:
        (found,) = generate(decoder, started(decoder, (9,), 10), Sampling(10), stop)
    finally:
        handle.remove()
    assert found == free[: free.index(stop) + 1]
    assert len(steps) == 1 + free.index(stop), "the prompt, and a step for each further token"
