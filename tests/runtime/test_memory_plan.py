"""Where the context of each language model ends, and how much the KV cache holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.models.loaded import load
from tests.recipes.released import RELEASED
from vlmc.checkpoint.rope_config import RopeScaling
from vlmc.runtime import memory_plan
from vlmc.runtime.memory_plan import cache_tokens, context_limit

CONFIG = replace(RELEASED["InternVL2-2B"].config.language, max_positions=1000)


@pytest.mark.parametrize(
    ("scaling", "limit"),
    [
        (RopeScaling(), 1000),
        (RopeScaling("dynamic", factor=2.5), 2500),
        (RopeScaling("linear", factor=2.0), 1000),
        (RopeScaling("longrope", original_positions=100), 1000),
    ],
)
def test_dynamic_rope_alone_stretches_the_context(scaling: RopeScaling, limit: int) -> None:
    assert context_limit(replace(CONFIG, rope_scaling=scaling)) == limit


@pytest.mark.parametrize(
    ("context", "max_batch_tokens", "tokens"),
    [(2048, 16384, 8 * 4096), (2048, 1024, 8 * 1024), (100_000, 1024, 101_024)],
    ids=["large steps", "small steps", "long context"],
)
def test_the_cache_of_a_cpu_holds_eight_of_its_steps_or_the_longest_sequence(
    context: int,
    max_batch_tokens: int,
    tokens: int,
    miniature: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoder = load(miniature, torch.float32, "cpu").decoder
    decoder.config = replace(decoder.config, max_positions=context, rope_scaling=RopeScaling())
    monkeypatch.setattr(memory_plan, "available_bytes", lambda: 1 << 40)
    assert cache_tokens(decoder, max_batch_tokens) == tokens
