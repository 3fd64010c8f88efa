"""The TensorRT member's control flow, over a stand-in for the package: see `fake_tensorrt`.

What TensorRT itself does with a plan is tested in tests/gpu, where there is a GPU that fits.
"""

from __future__ import annotations

import stat
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.runtime.engines.fake_tensorrt import (
    HIDDEN,
    TOKENS,
    CudaEngine,
    Stream,
    fake_cuda,
    fake_module,
)
from vlmc.artifact.manifest import EngineRecord, Profile
from vlmc.errors import HardwareError
from vlmc.runtime.engines.tensorrt_engine import TensorRTEngine

CPU = torch.device("cpu")
PROFILES = (Profile(1, 1, 2), Profile(4, 4, 6))


@pytest.fixture(autouse=True)
def kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where compiled kernels are kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches" / "vlmc" / "kernels"


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "tensorrt-rtx-sm89.engine"
    path.write_bytes(b"plan")
    return path


def entry(profiles: tuple[Profile, ...] = PROFILES) -> EngineRecord:
    return EngineRecord("tensorrt-rtx", "sm89", "fp32", "x", profiles, {}, None, 0.999)


def opened(
    plan: Path,
    monkeypatch: pytest.MonkeyPatch,
    made: CudaEngine | None,
    profiles: tuple[Profile, ...] = PROFILES,
    name: str = "tensorrt-rtx",
) -> TensorRTEngine:
    module: Any = fake_module(made)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", module)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    given = replace(entry(profiles), engine=name)
    return TensorRTEngine(plan, given, CPU, "0" * 64)


def tiles_of(count: int) -> torch.Tensor:
    tiles = torch.zeros(count, 448, 448, 3, dtype=torch.uint8)
    tiles[:, 0, 0, 0] = torch.arange(1, count + 1)
    return tiles


def expected_of(count: int) -> torch.Tensor:
    return torch.arange(1.0, count + 1).view(-1, 1, 1).expand(count, TOKENS, HIDDEN)


@pytest.mark.parametrize(
    ("count", "ran"),
    [(1, [[1], []]), (2, [[2], []]), (3, [[], [4]]), (6, [[], [6]]), (9, [[], [5, 4]])],
)
def test_batches_go_through_their_profiles(
    count: int, ran: list[list[int]], plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = fake_cuda(monkeypatch)
    made = CudaEngine(PROFILES, 100)
    engine = opened(plan, monkeypatch, made)
    assert torch.equal(engine.infer(tiles_of(count)), expected_of(count))
    assert [context.ran for context in made.contexts] == ran
    assert [context.profile for context in made.contexts] == [0, 1]
    assert {handle for c in made.contexts for handle in c.streams} == {current.cuda_stream}


def test_memory_is_the_largest_profiles_and_shared(
    plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_cuda(monkeypatch)
    made = CudaEngine(PROFILES, 100)
    engine = opened(plan, monkeypatch, made)
    assert engine.device_memory_bytes == 600
    memories = {context.memory for context in made.contexts}
    assert len(memories) == 1
    assert memories.pop()[1] == 600
    engine.close()


def test_result_goes_where_it_is_asked_to(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cuda(monkeypatch)
    engine = opened(plan, monkeypatch, CudaEngine(PROFILES, 100))
    for dtype in (torch.float32, torch.float16):
        out = torch.full((9, TOKENS, HIDDEN), -1, dtype=dtype)
        assert engine.infer(tiles_of(9), out) is out
        assert torch.equal(out, expected_of(9).to(dtype))
    # Rows of a larger tensor with gaps between them, at an address that TensorRT refuses.
    wide = torch.full((5, TOKENS, HIDDEN + 1), -1.0)
    engine.infer(tiles_of(5), wide[:, :, 1:])
    assert torch.equal(wide[:, :, 1:], expected_of(5))
    assert (wide[:, :, 0] == -1).all()


def test_another_stream_waits_for_the_last(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    current = fake_cuda(monkeypatch)
    engine = opened(plan, monkeypatch, CudaEngine(PROFILES, 100))
    first, second = Stream(1), Stream(2)
    for stream in (first, first, second, current):
        engine.infer(tiles_of(1), None, stream)  # type: ignore[arg-type]
    assert (first.waited, second.waited, current.waited) == ([7], [1], [2])


def test_refused_plan(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cuda(monkeypatch)
    with pytest.raises(
        HardwareError,
        match=r"tensorrt-rtx 1\.7\.1 cannot load .*: plan of another version\. Build .*"
        "--engine tensorrt-rtx --target sm89",
    ):
        opened(plan, monkeypatch, None)


def test_plan_of_other_profiles(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cuda(monkeypatch)
    with pytest.raises(HardwareError, match=r"profiles \[\(1, 1, 2\)\], but the manifest has"):
        opened(plan, monkeypatch, CudaEngine(PROFILES[:1], 100))


def test_profile_that_does_not_fit_in_memory(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cuda(monkeypatch, free_bytes=500)
    with pytest.raises(
        HardwareError, match=r"profile with max 6 needs 600 bytes on cpu, where 500 are free"
    ):
        opened(plan, monkeypatch, CudaEngine(PROFILES, 100))


def test_failed_run_is_told(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cuda(monkeypatch)
    made = CudaEngine(PROFILES, 100)
    engine = opened(plan, monkeypatch, made)
    monkeypatch.setattr(made.contexts[0], "execute_async_v3", lambda stream: False)
    with pytest.raises(HardwareError, match="tensorrt-rtx failed on 2 tiles in profile 0"):
        engine.infer(tiles_of(2))


def test_kernels_are_kept_for_the_next_load(
    plan: Path, kernels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_cuda(monkeypatch)
    engine = opened(plan, monkeypatch, CudaEngine(PROFILES, 100))
    for _ in range(2):
        engine.infer(tiles_of(1))
    (kept,) = kernels.iterdir()
    assert kept.read_bytes() == b"kernel", "after a profile's first run"
    assert stat.S_IMODE(kernels.stat().st_mode) == 0o700
    engine.infer(tiles_of(4))
    engine.infer(tiles_of(4))
    assert kept.read_bytes() == b"kernel" * 3
    engine.close()
    assert kept.read_bytes() == b"kernel" * 4
    made = CudaEngine(PROFILES, 100)
    opened(plan, monkeypatch, made)
    assert made.config.cache.kernels == b"kernel" * 4
    # Native code that somebody else could have written is not taken.
    for place in (kernels, kept):
        place.chmod(place.stat().st_mode | stat.S_IWOTH)
        made = CudaEngine(PROFILES, 100)
        opened(plan, monkeypatch, made)
        assert made.config.cache.kernels == b""
        place.chmod(stat.S_IMODE(place.stat().st_mode) & ~stat.S_IWOTH)


def test_full_tensorrt_compiles_nothing_when_it_loads(
    plan: Path, kernels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_cuda(monkeypatch)
    engine = opened(plan, monkeypatch, CudaEngine(PROFILES, 100), name="tensorrt")
    assert torch.equal(engine.infer(tiles_of(3)), expected_of(3))
    engine.close()
    assert not kernels.exists()
