"""The processes of a model while they find each other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = """
import torch
from vlmc.errors import HardwareError
from vlmc.runtime.team import start_team
try:
    with start_team("tests.distributed.leaving", {}, torch.device("cpu"), 2):
        print("joined")
except HardwareError as error:
    print(error)
"""


def test_a_follower_that_ends_while_the_group_joins_is_noticed() -> None:
    """Rank 0 would wait for it for minutes; nor does its thread that waits delay the end."""
    found = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert "rank 1 on cpu ended with 9" in found.stdout, found.stderr
