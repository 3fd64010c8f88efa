"""What `vlmc run` prints of a finished or stopped job."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from vlmc.cli.options import counted

if TYPE_CHECKING:
    from vlmc.jobs.summary import JobSummary


def summary_json(summary: JobSummary, output: str) -> dict[str, Any]:
    """The summary for `--json`."""
    changes = summary.changes
    return {
        "output": output,
        "rows": summary.rows,
        "answers": summary.answers,
        "errors": summary.errors,
        "reasons": [{"error": text, "lines": n} for text, n in summary.reasons],
        "resumed": summary.resumed,
        "remaining": summary.remaining,
        "stopped": summary.stopped,
        "seconds": round(summary.seconds, 3),
        "added": list(changes.added),
        "removed": list(changes.removed),
        "changed": list(changes.changed),
        "left_out": dict(summary.left_out),
        "rotation_ignored": summary.rotation_ignored,
        "clipped_to_8_bits": summary.clipped_to_8_bits,
        **({} if summary.audit is None else {"audit": asdict(summary.audit)}),
    }


def summary_lines(summary: JobSummary) -> Iterator[str]:
    """What was answered, and how it agrees with the reference path."""
    resumed = f", {summary.resumed:,} of them from an earlier run" if summary.resumed else ""
    yield (
        f"{counted(summary.answers, 'answer')}, {counted(summary.errors, 'error')} for "
        f"{counted(summary.rows, 'row')} in {summary.seconds:.1f} s{resumed}"
    )
    if (audit := summary.audit) is not None:
        checked = counted(audit.checked, "answer")
        yield f"audit: {audit.agreed:,} of {checked} are the same by the reference path"
        if audit.failed:
            yield f"  {counted(audit.failed, 'answer')} could not be checked: too little memory"
        for found in audit.disagreements:
            yield (
                f"  row {found['row']}, {found['question']}: {found['answer']!r}, by the reference "
                f"path {found['reference']!r}"
            )


def reasons_text(summary: JobSummary) -> str:
    """The most frequent errors, a line each."""
    return "".join(f"\n  {count:,} × {text}" for text, count in summary.reasons)


def input_lines(summary: JobSummary) -> Iterator[str]:
    """What the user should know of the input."""
    from vlmc.jobs.input.image_files import kinds_text

    if summary.changes:
        yield f"image files since the output was begun: {summary.changes}"
    if summary.changes.removed or summary.changes.changed:
        yield (
            "lines of removed and changed files are kept as they are; choose another output to "
            "answer all files again"
        )
    if summary.left_out:
        yield f"left out as not images: {kinds_text(summary.left_out)}"
    if summary.rotation_ignored:
        yield (
            f"pictures whose EXIF rotation was ignored, as in the original: "
            f"{summary.rotation_ignored}; a recipe with image.exif: apply turns them"
        )
    if summary.clipped_to_8_bits:
        yield (
            f"16-bit or float grey pictures clipped to 0..255, as in the original: "
            f"{summary.clipped_to_8_bits}; a recipe with image.high_bit_depth: scale scales them"
        )
