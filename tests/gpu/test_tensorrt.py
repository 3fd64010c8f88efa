"""TensorRT plans on a GPU that fits: at min, opt and max of every profile against the fp32 tower.

Skipped where there is none: TensorRT-RTX refuses Hopper, and full TensorRT is not on every index.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
import torch

from tests.compile.features import features_of, random_tiles
from tests.models.vision.fused import tower_of
from vlmc import load, open_artifact
from vlmc.builder.rebuild import rebuild
from vlmc.machine.gpu import gpu_of
from vlmc.machine.packages import PACKAGES
from vlmc.machine.support import EngineName, Target, refusal
from vlmc.models.cosine import tile_cosines
from vlmc.runtime.engines.selection import choose, open_engine

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

DEVICE = torch.device("cuda", 0)


@pytest.fixture(params=["tensorrt-rtx", "tensorrt"])
def engine(request: pytest.FixtureRequest) -> EngineName:
    """Each engine that this GPU runs, if its package is here."""
    name = cast(EngineName, request.param)
    reason = refusal(name, "fp32", cast(Target, gpu_of(0).target))
    if reason is not None:
        pytest.skip(f"{gpu_of(0).name}: {reason}")
    if PACKAGES[name].version is None:
        pytest.skip(f"{PACKAGES[name].module} is not installed")
    return name


@pytest.fixture
def rebuilt(engine: EngineName, artifact: Path, tmp_path: Path) -> Path:
    """The miniature with a plan for this GPU."""
    return rebuild(artifact, engine, [gpu_of(0).target], tmp_path / "rebuilt")


def test_every_profile_against_the_fp32_tower(rebuilt: Path, miniature: Path) -> None:
    opened = open_artifact(rebuilt)
    entry = choose(opened.manifest, opened.folder, DEVICE)
    engine = open_engine(opened, entry, DEVICE)
    counts = {count for p in entry.profiles for count in (p.min, p.opt, p.max)}
    largest = max(counts)
    tower = tower_of(miniature)
    for count in sorted({*counts, largest + 1, 2 * largest + 3}):
        tiles = random_tiles(count)
        expected = torch.from_numpy(features_of(tower, tiles))
        found = engine.infer(torch.from_numpy(tiles).to(DEVICE)).cpu()
        assert tile_cosines(found, expected).min() >= entry.min_feature_cosine
    engine.close()


def test_other_streams_and_memory_of_ones_own(rebuilt: Path) -> None:
    opened = open_artifact(rebuilt)
    engine = open_engine(opened, choose(opened.manifest, opened.folder, DEVICE), DEVICE)
    tiles = torch.from_numpy(random_tiles(3)).to(DEVICE)
    expected = engine.infer(tiles)
    out = torch.empty_like(expected)
    for _ in range(3):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        assert engine.infer(tiles, out.zero_(), stream) is out
        stream.synchronize()
        torch.testing.assert_close(out, expected)
    engine.close()


def test_the_artifact_answers_on_the_gpu(rebuilt: Path, engine: EngineName) -> None:
    with load(rebuilt, tiles="single") as model:
        assert model.engine == f"{engine} on cuda:0"
        assert model.generate([(None, "Hello")])
