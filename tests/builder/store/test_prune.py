"""`vlmc cache list|prune`: what goes, what stays, what is said."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.builder.small_steps import FILES, small_step
from vlmc.builder.executor import run_step
from vlmc.builder.store.prune import prune
from vlmc.builder.store.step_cache import StepCache
from vlmc.cli.main import main

NAMES = ("vision.weights", "vision.golden", "vision.graph")
SIZE = sum(map(len, FILES.values()))
DAY = 86_400


@pytest.fixture
def cache(tmp_path: Path) -> StepCache:
    """Three entries, last used 0, 10 and 20 days ago."""
    cache = StepCache(tmp_path / "cache")
    for days, name in zip((0, 10, 20), NAMES, strict=True):
        entry = run_step(small_step(name), cache).entry
        used = time.time() - days * DAY
        os.utime(entry.folder.parent, (used, used))
    return cache


def names(cache: StepCache) -> list[str]:
    return sorted(entry.name for entry in cache.entries())


@pytest.mark.parametrize(
    ("days", "max_bytes", "left"),
    [
        (30, None, NAMES),
        (15, None, NAMES[:2]),
        (30, 2 * SIZE, NAMES[:2]),
        (30, 2 * SIZE - 1, NAMES[:1]),
        (15, SIZE, NAMES[:1]),
        (0, None, ()),
        (30, 0, ()),
    ],
)
def test_longest_unused_go_first(
    days: float, max_bytes: int | None, left: tuple[str, ...], cache: StepCache
) -> None:
    pruned = prune(cache, unused_days=days, max_bytes=max_bytes)
    assert names(cache) == sorted(left)
    assert pruned.kept == len(left)
    assert pruned.bytes == SIZE * (3 - len(left)) == SIZE * len(pruned.entries)


def test_use_counts_not_age(cache: StepCache) -> None:
    run_step(small_step("vision.graph"), cache)
    prune(cache, unused_days=5, max_bytes=None)
    assert names(cache) == ["vision.graph", "vision.weights"]


def test_what_a_build_holds_stays(cache: StepCache) -> None:
    key = small_step("vision.graph").key
    with cache.locked(key, shared=True):
        prune(cache, unused_days=0, max_bytes=None)
    assert names(cache) == ["vision.graph"]


def test_damaged_and_unfinished_ones_go(cache: StepCache) -> None:
    key = small_step("vision.weights").key
    (cache.folder / "steps" / key / "files" / "a.bin").unlink()
    unfinished = cache.folder / "steps" / f".{key}.partial-01234567"
    held = cache.folder / "steps" / f".{'0' * 64}.partial-01234567"
    for folder in (unfinished, held):
        (folder / "files").mkdir(parents=True)
    with cache.locked("0" * 64):
        pruned = prune(cache, unused_days=30, max_bytes=None)
    assert (pruned.damaged, pruned.leftovers, pruned.kept) == ((key,), 1, 2)
    assert held.exists() and not unfinished.exists()
    assert names(cache) == ["vision.golden", "vision.graph"]


def test_empty_cache_is_left_alone(tmp_path: Path) -> None:
    pruned = prune(StepCache(tmp_path / "none"), unused_days=0, max_bytes=0)
    assert pruned.kept == 0 and pruned.entries == ()


def test_commands(cache: StepCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLMC_CACHE", str(cache.folder))

    def call(*arguments: str) -> str:
        result = CliRunner().invoke(main, ["cache", *arguments])
        assert result.exit_code == 0, result.output
        return result.stdout

    listed = json.loads(call("list", "--json"))
    assert listed["folder"] == str(cache.folder)
    assert {step["name"] for step in listed["steps"]} == set(NAMES)
    assert {step["bytes"] for step in listed["steps"]} == {SIZE}
    lines = call("list").splitlines()
    assert lines[-1] == f"{cache.folder}: 3 steps, {3 * SIZE:,} bytes"
    for name, line in zip(reversed(NAMES), lines, strict=False):
        assert line.startswith(name) and small_step(name).key[:12] in line
    removed = json.loads(call("prune", "--unused-days", "15", "--json"))
    assert removed == {
        "removed": [{"name": "vision.graph", "key": small_step("vision.graph").key}],
        "bytes": SIZE,
        "damaged": [],
        "unfinished": 0,
        "kept": 2,
    }
    assert call("prune", "--max-gib", "0").startswith("removed 2 steps, ")
    assert names(cache) == []
