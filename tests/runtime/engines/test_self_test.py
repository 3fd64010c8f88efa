"""The golden tiles at first load: what is refused, what is kept, and under which key."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.artifacts import copy_with
from tests.runtime.engines.sabotage import sabotaged
from vlmc import load, open_artifact
from vlmc.artifact.integrity import Artifact
from vlmc.artifact.manifest import read_manifest
from vlmc.artifact.write import seal
from vlmc.errors import HardwareError, IntegrityError
from vlmc.runtime.engines import self_test
from vlmc.runtime.engines.selection import CPU, open_engine
from vlmc.runtime.engines.self_test import check_golden, recorded


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    yield tmp_path / "caches" / "vlmc" / "self-test"


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The engines whose self-test was run, not taken from the cache."""
    ran: list[str] = []
    run = self_test.run_self_test

    def counted(artifact: Artifact, entry: Any, engine: Any) -> Any:
        ran.append(entry.engine)
        return run(artifact, entry, engine)

    monkeypatch.setattr(self_test, "run_self_test", counted)
    return ran


def test_it_runs_once_for_each_artifact_and_version(
    artifact: Path, tmp_path: Path, cache: Path, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        with load(artifact, device="cpu"):
            pass
    assert runs == ["onnxruntime"]
    (record,) = cache.iterdir()
    values = json.loads(record.read_text())
    assert values["identity"] == read_manifest(artifact).identity
    assert values["worst_cosine"] >= 0.999999
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    with load(copy_with(artifact, tmp_path / "other", name="other"), device="cpu"):
        pass
    monkeypatch.setattr(self_test, "machine_name", lambda device: "another machine")
    with load(artifact, device="cpu"):
        pass
    monkeypatch.setattr(self_test, "__version__", "another version")
    with load(artifact, device="cpu"):
        pass
    assert len(runs) == len(list(cache.iterdir())) == 4


def test_wrong_features_are_refused_each_time(
    artifact: Path, tmp_path: Path, runs: list[str]
) -> None:
    folder = sabotaged(artifact, tmp_path / "artifact")
    for _ in range(2):
        with pytest.raises(
            HardwareError, match=r"golden tile \d has cosine 0\.\d+ .* 0\.99999 is needed"
        ) as caught:
            load(folder, device="cpu")
    assert caught.value.exit_code == 5
    assert runs == ["onnxruntime"] * 2, "a failed engine is tried again, not believed"
    opened = open_artifact(folder)
    known = recorded(opened, opened.manifest.engines[0], CPU)
    assert known is not None
    assert not known.passed


def test_features_that_are_no_numbers_fail(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_artifact(artifact)
    entry = opened.manifest.engines[0]
    engine = open_engine(opened, entry, CPU)
    infer = engine.infer

    ran = []

    def one_nan(tiles: Any) -> Any:
        features = infer(tiles)
        ran.append(len(tiles))
        if len(ran) == 6:
            features[0, 3, 1] = np.nan
        return features

    monkeypatch.setattr(engine, "infer", one_nan)
    with pytest.raises(HardwareError, match=r"golden tile 5 has cosine -1\.0"):
        check_golden(opened, entry, engine)
    assert ran == [1] * 8, "the CPU takes one at a time, which needs the least memory"


def test_a_damaged_or_unwritable_record_costs_only_time(
    artifact: Path, cache: Path, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with load(artifact, device="cpu"):
        pass
    (record,) = cache.iterdir()
    for text in ("", "{}", '{"worst_cosine": "x"}', "[]"):
        record.write_text(text)
        with load(artifact, device="cpu"):
            pass
    assert len(runs) == 5
    cache.parent.parent.rename(cache.parent.parent.with_name("gone"))
    cache.parent.parent.write_text("no folder")
    with load(artifact, device="cpu"):
        pass
    assert len(runs) == 6


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        ("features", np.zeros((8, 256, 65), np.float32), "features is too large"),
        ("features", np.zeros((8, 256, 64), np.float16), "features is float16"),
        ("tiles", np.zeros((4, 448, 448, 3), np.uint8), r"tiles is uint8 \(4, 448"),
        ("other", np.zeros(1), "tiles"),
    ],
)
def test_golden_file_that_no_build_writes(
    name: str, array: Any, said: str, artifact: Path, tmp_path: Path
) -> None:
    folder = copy_with(artifact, tmp_path / "artifact")
    path = folder / "vision" / "golden.npz"
    with np.load(path) as golden:
        arrays = dict(golden)
    arrays = {name: array} if name == "other" else arrays | {name: array}
    np.savez_compressed(path, **arrays)
    seal(folder, read_manifest(folder))
    with pytest.raises(IntegrityError, match=f"does not hold golden tiles and features .*{said}"):
        load(folder, device="cpu")
