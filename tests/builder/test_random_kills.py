"""Builds killed at random moments: the next one ends with the artifact of an undisturbed one."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.artifacts import write_recipe
from vlmc.artifact.integrity import open_artifact
from vlmc.builder.store.step_cache import StepCache

KILLED = -9
STEPS = 6
WHOLE_SECONDS = 4.0  # about, on two cores


class Builds:
    """A process that builds, and kills, on demand; see `tests/builder/killing.py`."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process = process
        self._answers = iter(process.stdout or ())
        self._folder, self._count = folder, 0
        assert next(self._answers) == "ready\n"
        self._manifest = (folder / "first" / "manifest.json").read_bytes()

    def build(self, cache: Path, output: Path, seconds: float = -1) -> tuple[int, float]:
        """Build, killed after `seconds` unless they are negative; the exit status and the time."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{cache} {output} {seconds}\n")
        self._process.stdin.flush()
        status, took = next(self._answers).split()
        return int(status), float(took)

    def start(self, seed: Iterable[str]) -> tuple[StepCache, Path]:
        """A new cache that has the steps of `seed`, and a place for an artifact."""
        self._count += 1
        folder = self._folder / str(self._count)
        folder.mkdir()
        cache = StepCache(folder / "cache")
        for entry in StepCache(self._folder / "cache").entries():
            if entry.name in seed:
                shutil.copytree(entry.folder.parent, cache.folder / "steps" / entry.key)
        return cache, folder / "artifact"

    def undisturbed(self, seed: Iterable[str]) -> float:
        """Seconds that a build from there takes."""
        cache, output = self.start(seed)
        status, seconds = self.build(cache.folder, output)
        assert status == 0
        return seconds

    def kill_and_resume(self, seconds: float, seed: Iterable[str]) -> int:
        """Kill a build, resume it, check what it made; how many steps were done before."""
        cache, output = self.start(seed)
        status, _ = self.build(cache.folder, output, seconds)
        assert status in (KILLED, 0)
        before = {entry.name: entry for entry in cache.entries()}
        assert len(before) == len(cache.entry_keys()), "none is damaged"
        assert output.exists() or status == KILLED
        if output.exists():
            open_artifact(output)

        assert self.build(cache.folder, output)[0] == 0
        assert (output / "manifest.json").read_bytes() == self._manifest
        open_artifact(output)
        assert [path.name for path in output.parent.glob(".*")] == []
        assert [path.name for path in (cache.folder / "steps").glob(".*")] == []
        after = {entry.name: entry for entry in cache.entries()}
        assert len(after) == STEPS
        assert {name: after[name] for name in before} == before, "no finished step is made again"
        shutil.rmtree(output.parent)
        return len(before)


@pytest.fixture
def builds(miniature: Path, tmp_path: Path) -> Iterator[Builds]:
    recipe = write_recipe(tmp_path / "recipe.yaml", miniature)
    command = [sys.executable, "-m", "tests.builder.killing", str(recipe), str(tmp_path / "first")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Builds(process, tmp_path)
        finally:
            process.kill()


# The export takes nearly all of the time, so most builds have it done: from which steps they
# start, and how many of them there are in CI and in the slow tests.
KILLS: dict[str, tuple[tuple[str, ...], int, int]] = {
    "whole": ((), 1, 25),
    "exported": (("vision.graph",), 2, 18),
    "golden": (("vision.graph", "vision.golden"), 2, 17),
}


def kill_at_random(builds: Builds, seed: int, column: int) -> None:
    generator, come = random.Random(seed), set()
    for start, *counts in KILLS.values():
        seconds = builds.undisturbed(start) if start else WHOLE_SECONDS
        for _ in range(counts[column]):
            come.add(builds.kill_and_resume(generator.uniform(0, seconds), start))
    # How many differ depends on what else the machine does meanwhile.
    assert len(come) > 1, "the moments differ"


def test_killed_at_five_random_moments(builds: Builds) -> None:
    kill_at_random(builds, 20, 0)


@pytest.mark.slow
def test_killed_at_sixty_random_moments(builds: Builds) -> None:
    kill_at_random(builds, 21, 1)
