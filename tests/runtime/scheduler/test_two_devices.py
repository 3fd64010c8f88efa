"""The serving loop over two processes: shared prefixes, choices that fork, steps of all kinds."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.models.loaded import load
from tests.runtime.scheduler.serving import drawn, start
from tests.runtime.scheduler.shared_miniature import share

CPU = torch.device("cpu")


def test_interleaved_requests_answer_as_the_reference(miniature: Path) -> None:
    asked = drawn(5, 40)
    alone = start(load(miniature).decoder)
    alone.loop.close()  # what follows asks its reference loop alone
    with share(miniature, "float32", CPU, policy="content") as service:
        results = service.ask(asked)
    for (prepared, work), (result, _) in zip(asked, results, strict=True):
        alone.check(prepared, work, result)
