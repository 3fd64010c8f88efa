"""Half precision runs on every family and stays as close to fp32 as its digits allow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests import oracle
from tests.models.loaded import embed_chat, features, load
from vlmc.models.language.reference_loop import Sampling, generate, prefill

Folder = Callable[[str], Path]
NAMES = ("internlm2-300m", "internlm2-6b", "qwen2-300m", "phi3-300m", "llama-llama3-6b")


@dataclass(frozen=True, slots=True)
class Bound:
    """What a dtype may differ from fp32 by, and the least that it must, or it was not used."""

    features: float  # root mean square of the difference, relative
    logits: float  # largest difference at the prompt's end
    least: float


BOUNDS = {torch.bfloat16: Bound(0.01, 0.15, 1e-3), torch.float16: Bound(0.0015, 0.02, 1e-4)}


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_features_stay_close(name: str, dtype: torch.dtype, miniatures: Folder) -> None:
    folder, picture = miniatures(name), oracle.FEATURE_PICTURES[1]
    expected = features(folder, *picture, torch.float32, "cpu")
    found = features(folder, *picture, dtype, "cpu")
    assert found.dtype == dtype
    error = float((found.float() - expected).norm() / expected.norm())
    assert BOUNDS[dtype].least < error < BOUNDS[dtype].features


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_logits_and_answers_stay_close(name: str, dtype: torch.dtype, miniatures: Folder) -> None:
    folder, bound = miniatures(name), BOUNDS[dtype]
    loaded = load(folder, dtype)
    for case in ("two", "history"):
        chat = oracle.chat(name, case)
        start = prefill(loaded.decoder, [embed_chat(folder, loaded, chat)], 0, reserve_tokens=16)
        assert start.cache.keys.dtype == dtype
        assert start.logits.dtype == torch.float32
        error = float((start.logits[0] - torch.from_numpy(chat.logits[-1])).abs().max())
        assert bound.least < error < bound.logits
        answer = generate(loaded.decoder, start, Sampling(16), loaded.prompts.stop_id)[0]
        clear = next((i for i, gap in enumerate(chat.gaps) if gap < 2 * bound.logits), 16)
        assert list(answer[:clear]) == chat.new_ids[:clear]
