"""A slow job that may be killed: `python -m tests.jobs.killing SOURCE OUT`."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.jobs.fake import FakeModel
from tests.jobs.small_job import PROMPTS
from vlmc.jobs.input.open import open_input
from vlmc.jobs.job import run_job
from vlmc.jobs.output import journal

if __name__ == "__main__":
    journal.BATCH_LINES = 3
    run_job(
        FakeModel(wait_s=0.004),
        open_input(sys.argv[1]),
        PROMPTS,
        Path(sys.argv[2]),
        artifact="f00d",
        tiles="original",
    )
