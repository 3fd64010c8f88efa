"""The benchmark of jobs on several GPUs, on a miniature on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("ray")

ROOT = Path(__file__).parents[3]
PROGRAM = [sys.executable, "-m", "benchmarks.ray_gpu"]


def test_it_measures_jobs_without_ray_and_with_it() -> None:
    options = ["--device", "cpu", "--gpus", "0,1", "--images", "48"]
    found = subprocess.run([*PROGRAM, *options], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    local, one = map(json.loads, found.stdout.splitlines())
    assert (local["gpus"], local["against_one"]) == (0, None)
    assert (one["gpus"], one["against_one"]) == (1, 1.0)
    assert min(local["questions_per_minute"], one["questions_per_minute"]) > 0


def test_too_many_workers_are_refused_before_anything_is_compiled() -> None:
    options = ["--device", "cpu", "--gpus", "4096"]
    found = subprocess.run([*PROGRAM, *options], cwd=ROOT, capture_output=True, text=True)
    assert "--workers is 4096" in found.stderr and found.stdout == ""


def test_it_needs_no_tests() -> None:
    """Nor what they import: pytest and pyarrow are not on every machine with GPUs."""
    code = (
        "import sys, benchmarks.ray_gpu; print({'tests', 'pytest', 'pyarrow'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert found.stdout == "set()\n", found.stderr
