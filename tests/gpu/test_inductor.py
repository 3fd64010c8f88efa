"""The inductor engine on CUDA: compiled, loaded in a fresh process, against the fp32 tower."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.gpu.packages import CUDA, LEAST, PROFILES, entry_of, plan_of
from tests.models.vision.fused import (
    TOWERS,
    reference,
    some_tiles,
    tower_of,
    worst_cosine,
)
from vlmc.errors import HardwareError

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

Folder = Callable[[str], Path]
COUNTS = sorted({n for p in PROFILES for n in (p.min, p.opt, p.max)} | {16})
# Loads and runs what is on disk, with every way to compile taken away.
FRESH = """
import sys
from pathlib import Path
from unittest import mock
import torch
from tests.gpu.packages import CUDA, entry_of
from tests.models.vision.fused import some_tiles, tower_of
from vlmc.models.vision.tower_precision import TowerPrecision
from vlmc.runtime.engines.inductor_engine import InductorEngine

package, checkpoint, precision, clips, output = sys.argv[1:]
tower = tower_of(Path(checkpoint))
plan = TowerPrecision(torch.float16, torch.load(clips, weights_only=True))
refuse = mock.Mock(side_effect=AssertionError("something was compiled"))
with mock.patch("subprocess.Popen", refuse), mock.patch("triton.compile", refuse):
    engine = InductorEngine(Path(package), entry_of(precision), tower, plan, CUDA)
    features = engine.infer(some_tiles(2).to(CUDA)).cpu()
assert not any(name.startswith("vlmc.compile") for name in sys.modules)
torch.save(features, output)
"""


@pytest.fixture(scope="module")
def package(
    tmp_path_factory: pytest.TempPathFactory, miniatures: Folder
) -> Callable[[str, str], Path]:
    """`package(miniature, precision)`, compiled once."""
    from vlmc.compile.engines.inductor import compile_tower
    from vlmc.models.vision.fuse import fuse

    compiled: dict[tuple[str, str], Path] = {}

    def compile_once(name: str, precision: str) -> Path:
        if (name, precision) not in compiled:
            folder = tmp_path_factory.mktemp("inductor") / "vision"
            folder.mkdir()
            path = folder / "inductor.pt2"
            tower = tower_of(miniatures(name))
            compile_tower(fuse(tower, plan_of(precision, tower)).to(CUDA), path, opt_tiles=5)
            compiled[name, precision] = path
        return compiled[name, precision]

    return compile_once


@pytest.mark.parametrize(
    ("name", "precision"),
    [(TOWERS[0], "fp16"), (TOWERS[0], "bf16"), (TOWERS[0], "fp8"), (TOWERS[1], "fp16")],
)
def test_every_profile_against_fp32(
    name: str, precision: str, package: Callable[[str, str], Path], miniatures: Folder
) -> None:
    from vlmc.runtime.engines.inductor_engine import InductorEngine

    tower = tower_of(miniatures(name))
    engine = InductorEngine(
        package(name, precision), entry_of(precision), tower, plan_of(precision, tower), CUDA
    )
    for count in COUNTS:
        pixels = some_tiles(count)
        found = engine.infer(pixels.to(CUDA))
        assert found.shape[:2] == (count, 256)
        assert worst_cosine(found, reference(tower, pixels)) >= LEAST[precision]
        given = torch.empty_like(found)
        stream = torch.cuda.Stream()
        assert engine.infer(pixels.to(CUDA), out=given, stream=stream) is given
        stream.synchronize()
        assert torch.equal(given, found)
    engine.close()


@pytest.mark.parametrize("precision", ["fp16", "fp8"])
def test_a_fresh_process_loads_it_without_compiling(
    precision: str, package: Callable[[str, str], Path], miniatures: Folder, tmp_path: Path
) -> None:
    clips, output, name = tmp_path / "clips", tmp_path / "features", TOWERS[0]
    tower = tower_of(miniatures(name))
    # Measured here, for that is part of compiling.
    torch.save(dict(plan_of(precision, tower).clips), clips)
    command = [sys.executable, "-c", FRESH, str(package(name, precision)), str(miniatures(name))]
    subprocess.run([*command, precision, str(clips), str(output)], check=True)
    found: Tensor = torch.load(output, weights_only=True)
    expected = reference(tower, some_tiles(2))
    assert worst_cosine(found, expected) >= LEAST[precision]


def test_small_batches_through_cuda_graphs(
    package: Callable[[str, str], Path], miniatures: Folder
) -> None:
    """One graph after another, padded or exact, and a batch that no graph takes."""
    from vlmc.runtime.engines.graphed_engine import GraphedEngine
    from vlmc.runtime.engines.inductor_engine import InductorEngine

    tower = tower_of(miniatures(TOWERS[0]))
    plain = InductorEngine(
        package(TOWERS[0], "fp16"), entry_of("fp16"), tower, plan_of("fp16", tower), CUDA
    )
    engine = GraphedEngine(plain, [1, 2, 3, 16])
    tiles = some_tiles(24)
    kept = []
    for first, count in ((0, 1), (1, 3), (4, 1), (2, 2), (5, 15), (0, 16), (0, 5), (0, 20)):
        batch = tiles[first : first + count]
        kept.append((engine.infer(batch.to(CUDA)), batch))
    for found, batch in kept:
        assert len(found) == len(batch)
        assert worst_cosine(found, reference(tower, batch)) >= LEAST["fp16"]
    given = torch.empty_like(kept[1][0])
    assert engine.infer(kept[1][1].to(CUDA), out=given) is given
    assert worst_cosine(given, reference(tower, kept[1][1])) >= LEAST["fp16"]
    engine.close()


def test_tiles_are_copied_beside_what_runs() -> None:
    """Each batch arrives as it was when given, however much later the GPU reads it."""
    from vlmc.runtime.images.upload import TileUpload

    upload, sums, expected = TileUpload(CUDA, 13), [], []
    busy = torch.randn(4096, 4096, device=CUDA)
    for seed in range(12):
        images = [some_tiles(count + seed)[seed:].numpy() for count in (1, 4, seed % 8 + 1)]
        expected.append(sum(int(image.astype("int64").sum()) for image in images))
        for _ in range(4):
            busy = busy @ busy
        batch = upload.copy(images)
        sums.append(batch.long().sum())
        upload.release()
        for image in images:
            image[:] = 0
    assert [int(one) for one in sums] == expected


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_artifact_is_built_for_this_gpu_and_answers(
    precision: str, miniature: Path, tmp_path: Path
) -> None:
    """Its features pass the self-test when it is loaded."""
    from tests.artifacts import build_from
    from vlmc import load
    from vlmc.artifact.manifest import read_manifest

    engines = "vision.engines=[{engine: inductor}]"
    source = build_from(
        miniature, tmp_path / "artifact", (engines, f"vision.precision={precision}")
    )
    (engine,) = read_manifest(source).engines
    assert engine.device_memory_bytes
    with load(source, tiles="single") as model:
        assert model.engine == "inductor on cuda:0"
        assert model.generate([(None, "Hello")])


def test_what_does_not_fit_is_refused(
    package: Callable[[str, str], Path], miniatures: Folder
) -> None:
    from vlmc.runtime.engines.inductor_engine import InductorEngine

    tower, entry = tower_of(miniatures(TOWERS[0])), entry_of("fp16")
    plan, path = plan_of("fp16", tower), package(TOWERS[0], "fp16")
    other = replace(entry, versions={**entry.versions, "torch": "1.0"})
    with pytest.raises(HardwareError, match=r"torch 1\.0, but here is .* --engine inductor"):
        InductorEngine(path, other, tower, plan, CUDA)
    with pytest.raises(HardwareError, match="another tower or precision"):
        InductorEngine(
            package(TOWERS[0], "fp8"), entry, tower_of(miniatures(TOWERS[0])), plan, CUDA
        )
