"""A disk that fills up ends a build with a clear error and a sound cache."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.artifacts import write_recipe
from vlmc.builder.store.step_cache import StepCache
from vlmc.errors import BuildError

# Brings each step into the cache while no file may grow beyond so many bytes, which libraries in
# C++ and Rust meet as they meet a full disk.
SCRIPT = """
import json, resource, sys
from pathlib import Path
from vlmc.builder.build import build_steps
from vlmc.builder.store.step_cache import StepCache
from vlmc.errors import BuildError
from vlmc.recipe.read import read_recipe

recipe, cache, most, *steps = sys.argv[1:]
cache = StepCache(Path(cache))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(most), -1))
for step in steps:
    try:
        build_steps(read_recipe(Path(recipe), ()), [step], cache=cache)
        print(json.dumps("done"))
    except BuildError as error:
        print(json.dumps(str(error)))
"""
QUICK = ("vision.weights", "vision.golden", "language.weights")


@pytest.mark.parametrize(
    "steps",
    [QUICK, pytest.param(("vision.graph",), marks=pytest.mark.slow)],
    ids=["quick", "graph"],
)
def test_full_disk_under_real_steps(
    steps: tuple[str, ...], miniature: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", miniature)
    told = {}
    for most in (100_000, 10_000_000):
        command = [sys.executable, "-c", SCRIPT, recipe, tmp_path / "cache", most]
        finished = subprocess.run(
            [*map(str, command), "language.tokenizer", *steps],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "Traceback" not in finished.stderr
        told[most] = [json.loads(line) for line in finished.stdout.splitlines()]
        cache = StepCache(tmp_path / "cache")
        stored = {entry.name for entry in cache.entries()}
        assert len(cache.entry_keys()) == len(stored)
        assert [path.name for path in (cache.folder / "steps").glob(".*")] == []
        assert stored == {"language.tokenizer", *(steps if most > 1_000_000 else ())}
    assert told[10_000_000] == ["done"] * (1 + len(steps))
    first, *others = told[100_000]
    assert first == "done"
    for step, error in zip(steps, others, strict=True):
        for part in (f"step {step} failed", "the disk is full", "bytes left", "vlmc cache prune"):
            assert part in error


def test_full_disk_under_the_artifact(
    quick_build: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = quick_build()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("vlmc.builder.executor.copy_file", full)
        with pytest.raises(BuildError, match=r"disk is full.*another disk with -o"):
            quick_build(["name=other"])
    assert sorted(path.name for path in (tmp_path / "artifacts").iterdir()) == sorted(
        ["miniature", good.name]
    )
    assert quick_build(["name=other"]).is_dir()
