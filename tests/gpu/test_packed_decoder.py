"""Packed steps and the serving loop on a GPU, graphs included, against the reference loop there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.models.loaded import load
from tests.runtime.scheduler.serving import Service, drawn, start
from vlmc.runtime.scheduler.sequence import Generated

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

Folder = Callable[[str], Path]
NAMES = ("internlm2-300m", "qwen2-300m", "phi3-300m", "llama-yi-6b")


def answered(service: Service, seed: int, count: int) -> None:
    asked = drawn(seed, count)
    try:
        results = service.ask(asked)
        for (prepared, work), (result, _) in zip(asked, results, strict=True):
            service.check(prepared, work, result)
    finally:
        service.loop.close()


@pytest.mark.parametrize("graphs", [True, False], ids=["graphs", "no graphs"])
@pytest.mark.parametrize("policy", ["off", "text", "content"])
@pytest.mark.parametrize("name", NAMES)
def test_answers_are_the_references(
    name: str, policy: str, graphs: bool, miniatures: Folder
) -> None:
    decoder = load(miniatures(name), torch.float32, "cuda").decoder
    answered(start(decoder, policy=policy, cuda_graphs=graphs), 1, 40)


@pytest.mark.parametrize("name", NAMES)
def test_bf16_differs_only_in_near_ties(name: str, miniatures: Folder) -> None:
    decoder = load(miniatures(name), torch.bfloat16, "cuda").decoder
    service = start(decoder, policy="content")
    asked = drawn(2, 40)
    try:
        results = service.ask(asked)
    finally:
        service.loop.close()
    differing = 0
    for (prepared, work), (result, _) in zip(asked, results, strict=True):
        if isinstance(result, Generated):
            differing += result.token_ids != service.expected(prepared, work)[0]
    # Random weights leave many near ties; most answers are the same all the same.
    assert differing <= len(asked) // 4


def test_many_interleavings_with_graphs(miniature: Path) -> None:
    decoder = load(miniature, torch.float32, "cuda").decoder
    for seed in range(20):
        answered(start(decoder, policy="content", cache_tokens=2048), seed, 30)
