"""The serving loop over two processes: shared prefixes, choices that fork, quantized weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tests.miniature.quantized import write_quantized
from tests.models.loaded import load
from tests.runtime.scheduler.serving import drawn, start
from tests.runtime.scheduler.shared_miniature import load_shard, share
from vlmc.models.language.decoder import Decoder
from vlmc.runtime.scheduler.sequence import ChoiceScores

CPU = torch.device("cpu")
GROUP = 16  # divides half of each width of a miniature


def on_one(checkpoint: Path) -> Decoder:
    """The decoder of a checkpoint on one device."""
    return load_shard({"checkpoint": str(checkpoint), "dtype": "float32"}, CPU)


def check_against_reference(checkpoint: Path, seed: int, count: int) -> None:
    """Answer drawn requests on two devices, and compare with the reference loop on one."""
    asked = drawn(seed, count)
    alone = start(on_one(checkpoint))
    alone.loop.close()  # its reference loop is enough
    with share(checkpoint, "float32", CPU, policy="content") as service:
        results = service.ask(asked)
    for (prepared, work), (result, _) in zip(asked, results, strict=True):
        alone.check(prepared, work, result)


def test_interleaved_requests_answer_as_the_reference(miniature: Path) -> None:
    check_against_reference(miniature, 5, 40)


def test_four_bits_answer_as_on_one_device(miniature: Path, tmp_path: Path) -> None:
    folder = write_quantized(miniature, tmp_path / "source", "pack-quantized", group_size=GROUP)
    check_against_reference(folder, 6, 12)


def test_fp8_differs_less_than_by_its_own_error(miniature: Path, tmp_path: Path) -> None:
    """Each device rounds its half of the inputs of two linears with a scale of its own."""
    folder = write_quantized(miniature, tmp_path / "source", "float-quantized")
    asked = drawn(7, 30)
    exact, rounded = start(load(miniature).decoder), start(on_one(folder))
    for alone in (exact, rounded):
        alone.loop.close()
    with share(folder, "float32", CPU, policy="content") as service:
        results = service.ask(asked)
    errors, differences = [], []
    for (prepared, work), (result, _) in zip(asked, results, strict=True):
        if isinstance(result, ChoiceScores):
            expected = np.array(rounded.expected(prepared, work)[1])
            errors += list(expected - exact.expected(prepared, work)[1])
            differences += list(expected - result.logprobs)
    assert len(errors) > 10
    assert 0 < np.abs(differences).mean() < np.abs(errors).mean()
