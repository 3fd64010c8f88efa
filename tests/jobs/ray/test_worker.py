"""What a worker uses of its machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vlmc.jobs.ray.prepare import move_to

ROOT = Path(__file__).parents[3]
CODE = """
import os, sys
from vlmc.jobs.ray.worker import keep_to
reserved = keep_to(1)
print(*os.sched_getaffinity(0), flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_workers_of_a_machine_use_different_cores_whatever_their_numbers() -> None:
    """A cluster hands numbers out over its machines, so that any two may meet on one."""
    two = sorted(os.sched_getaffinity(0))[:2]

    def start() -> tuple[subprocess.Popen[str], list[int]]:
        pinned = ["taskset", "-c", ",".join(map(str, two)), sys.executable, "-c", CODE]
        process = subprocess.Popen(
            pinned, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert process.stdout is not None
        return process, [int(core) for core in process.stdout.readline().split()]

    (first, one), (second, other), (third, any_of_both) = start(), start(), start()
    assert sorted([one, other]) == [two[:1], two[1:]]
    assert any_of_both == two, "all are taken"
    first.kill()
    first.wait()
    again, taken = start()
    assert taken == one
    for process in (first, second, third, again):
        process.kill()
        process.communicate()


def test_a_folder_that_a_node_lacks_is_left_out(tmp_path: Path) -> None:
    before = Path.cwd()
    move_to(str(tmp_path / "none"))
    assert Path.cwd() == before
