"""A hundred thousand requests through a one-layer model whose cache holds few of them."""

from __future__ import annotations

import gc
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.models.loaded import load
from tests.runtime.scheduler.serving import Service, picture, request, start
from vlmc.models.language.load import load_decoder
from vlmc.models.language.random_weights import random_tensors
from vlmc.runtime.images.prepare import PreparedRequest
from vlmc.runtime.scheduler.choice_trie import ChoiceTrie
from vlmc.runtime.scheduler.sequence import ChoiceScores, Generated, Sampling

REQUESTS, WINDOW, CHECKED = 100_000, 500, 400
STATM = Path("/proc/self/statm")


def one_layer(folder: Path) -> Service:
    """Of the miniature's shape; its cache holds a dozen pictures."""
    config = replace(load(folder).config.language, layers=1)
    device = torch.device("cpu")
    tensors = random_tensors(config, None, torch.float32, device)
    decoder = load_decoder(config, tensors, dtype=torch.float32, device=device)
    return start(decoder, cache_tokens=12 * 272, max_batch_tokens=512, stop_id=11)


def drawn(chance: random.Random) -> tuple[PreparedRequest, Sampling | ChoiceTrie]:
    """Mostly short texts; some ask about one of fifty pictures, some are scored."""
    pictures = [picture(chance.randrange(50))] if chance.random() < 0.1 else []
    question = [chance.randrange(8, 60) for _ in range(chance.randrange(1, 24))]
    asked = request(pictures, question, [chance.randrange(8, 12)] * chance.choice((1, 20)))
    if chance.random() < 0.2:
        return asked, ChoiceTrie([(9,), (9, 10), (12, 13)], 2)
    return asked, Sampling(chance.choice((1, 2, 5)))


def resident_bytes() -> int:
    gc.collect()
    return int(STATM.read_text().split()[1]) * 4096


@pytest.mark.slow
@pytest.mark.skipif(not STATM.exists(), reason="needs /proc to read the memory of this process")
def test_memory_is_flat_and_every_request_is_answered_once(miniature: Path) -> None:
    service, chance = one_layer(miniature), random.Random(0)
    taken = []
    try:
        for first in range(0, REQUESTS, WINDOW):
            asked = [drawn(chance) for _ in range(WINDOW)]
            # `ask` holds that each comes back once, and sorts them by their place.
            results = service.ask(asked)
            for (_, work), (result, _) in zip(asked, results, strict=True):
                kind = Generated if isinstance(work, Sampling) else ChoiceScores
                assert isinstance(result, kind), result
            if first % (REQUESTS // CHECKED * WINDOW) == 0:
                index = chance.randrange(WINDOW)
                service.check(*asked[index], results[index][0])
            if first % (REQUESTS // 10) == 0:
                taken.append(resident_bytes())
    finally:
        service.loop.close()
    assert max(taken[2:]) <= 1.02 * taken[2], taken
