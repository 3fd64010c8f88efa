"""What a job did, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vlmc.jobs.audit import AuditResult
from vlmc.jobs.file_index import InputChanges


@dataclass(frozen=True, slots=True)
class JobSummary:
    """`answers` and `errors` count the output's lines, `resumed` those of an earlier run.

    `remaining` lines are not written yet, because the job `stopped` for that reason.
    `reasons` are the most frequent errors with the number of their lines. `changes` is how the
    image files differ from those of the run that began the output. `left_out` counts, by kind,
    the files of the input that are not images. `seconds` is of this run alone, as are the counts
    of its pictures: `rotation_ignored` of those whose EXIF orientation was ignored,
    `clipped_to_8_bits` of grey ones with more bits, clipped to 0..255. `audit` is of the answers
    that were checked by the reference path.
    """

    rows: int
    answers: int
    errors: int
    reasons: tuple[tuple[str, int], ...]
    resumed: int
    remaining: int
    stopped: str | None
    seconds: float
    changes: InputChanges
    left_out: Mapping[str, int]
    rotation_ignored: int
    clipped_to_8_bits: int
    audit: AuditResult | None = None
