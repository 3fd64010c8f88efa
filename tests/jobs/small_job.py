"""A job of three questions with a fake model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.jobs.fake import FakeModel
from vlmc.jobs.input.open import open_input
from vlmc.jobs.input.prompts import Prompt
from vlmc.jobs.job import run_job
from vlmc.jobs.summary import JobSummary

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


def output_files(out: Path) -> set[str]:
    """The names of a finished output on image files, and of what is kept beside it."""
    return {out.name, f"{out.name}.ledger.json", f"{out.name}.files.jsonl"}
