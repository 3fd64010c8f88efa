"""The last lines of a test run say how many tests were skipped, and why."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SKIPPING = """
import pytest

@pytest.mark.skipif(True, reason="needs a CUDA device")
@pytest.mark.parametrize("number", range(3))
def test_on_a_gpu(number: int) -> None: ...

def test_of_a_package() -> None:
    pytest.importorskip("none_such", reason="needs none-such")

def test_that_runs() -> None: ...
"""


def test_reasons_are_grouped_whoever_ran_the_tests(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(SKIPPING)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.skips", "--rootdir", tmp_path]
    for processes in ("0", "2"):
        done = subprocess.run(
            [*command, "-n", processes, "-c", "/dev/null", tmp_path],
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            check=True,
        )
        assert (
            "skipped 3 tests: needs a CUDA device\nskipped 1 test: needs none-such\n" in done.stdout
        )
