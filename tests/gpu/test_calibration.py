"""Calibration on CUDA finds what it finds on the CPU, up to fp32's last bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.compile.calibration.tiles import calibration_tiles
from vlmc.checkpoint.source import open_checkpoint
from vlmc.compile.calibration.ranges import calibrate
from vlmc.compile.vision import fp32_tower
from vlmc.machine.support import MIN_FEATURE_COSINE, Precision

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("precision", ["fp16", "int8", "fp8"])
@pytest.mark.parametrize("name", ["internlm2-300m", "internlm2-6b"])
def test_ranges(
    name: str, precision: Precision, miniatures: Callable[[str], Path], images: Path
) -> None:
    found = []
    for device in ("cpu", "cuda"):
        with open_checkpoint(miniatures(name)) as checkpoint:
            tower = fp32_tower(checkpoint, device)
        least = MIN_FEATURE_COSINE[precision]
        tiles = calibration_tiles(images)
        found.append(calibrate(tower, precision, tiles, min_cosine=least, seed=0))
        assert found[-1].device == device
    here, there = found
    assert here.tiles == there.tiles
    assert there.ranges.keep_fp32 == here.ranges.keep_fp32
    assert there.ranges.residual == pytest.approx(here.ranges.residual, rel=1e-4)
    for part, expected in here.ranges.linears.items():
        linear = there.ranges.linears[part]
        assert linear.output == pytest.approx(expected.output, rel=1e-3), part
        if precision == "fp16":
            assert linear.minimum == pytest.approx(expected.minimum, rel=1e-3), part
            assert linear.maximum == pytest.approx(expected.maximum, rel=1e-3), part
        else:
            # Of clips that are as good, either may be taken.
            error = here.clips[part].error
            assert there.clips[part].error == pytest.approx(error, rel=0.02), part
    if precision == "fp16":
        assert here.worst_cosine is there.worst_cosine is None
    else:
        assert there.worst_cosine == pytest.approx(here.worst_cosine, abs=2e-4)
