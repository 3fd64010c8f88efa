"""A job of three questions with a fake model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.jobs.fake import FakeModel
from vlmc.jobs.input.open import open_input
from vlmc.jobs.input.prompts import Prompt
from vlmc.jobs.job import JobSummary, run_job

PROMPTS = [Prompt("fire", "fire?"), Prompt("door", "door?"), Prompt("lamp", "lamp?")]


def run(
    source: Path | str,
    out: Path,
    prompts: Sequence[Prompt] = PROMPTS,
    model: FakeModel | None = None,
    **options: Any,
) -> JobSummary:
    """Run the job, with `PROMPTS` and a new model unless others are given."""
    options = {"artifact": "f00d", "tiles": "original", **options}
    return run_job(model or FakeModel(), open_input(str(source)), prompts, out, **options)
