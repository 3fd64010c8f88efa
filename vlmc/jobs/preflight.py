"""What a job refuses before the model is asked anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vlmc.errors import UsageError
from vlmc.jobs.input.parquet import ParquetRows
from vlmc.jobs.input.prompts import Prompt
from vlmc.jobs.input.rows import Rows
from vlmc.jobs.output.parquet import check_passed_on_to_json, passed_on_schema
from vlmc.jobs.question_runner import OUTPUT_COLUMNS


def check_job(
    rows: Rows,
    prompts: Sequence[Prompt],
    out: Path,
    choices: Sequence[str] | None,
    max_new_tokens: int,
) -> None:
    """Raise `UsageError` for a job that cannot run, or whose output could not hold its lines."""
    if rows.prompted and prompts:
        raise UsageError(
            f"{rows.source}: its rows bring their own prompts, so that --prompt and --prompts "
            "have no place; leave them out, or remove the column prompt"
        )
    if not rows.prompted and not prompts:
        raise UsageError(f"{rows.source}: has no column prompt; give --prompt or --prompts")
    clashes = [name for name in rows.columns if name in OUTPUT_COLUMNS]
    if clashes:
        raise UsageError(
            f"{rows.source}: the column {clashes[0]!r} has the name of one that the output adds; "
            "rename it"
        )
    if choices is not None:
        if len(choices) < 2 or not all(choices) or len(set(choices)) < len(choices):
            raise UsageError(
                f"the choices are {', '.join(map(repr, choices)) or 'none'}; give at least two, "
                "different and not empty"
            )
    elif max_new_tokens < 1:
        raise UsageError(f"max_new_tokens is {max_new_tokens}; it must be 1 or more")
    if out.suffix not in {".jsonl", ".parquet"}:
        raise UsageError(f"{out}: the output must end in .jsonl or .parquet")
    if out.is_dir() or (out.exists() and Path(rows.source).exists() and out.samefile(rows.source)):
        raise UsageError(f"{out}: is a folder or the input itself; choose another output")
    if out.suffix == ".parquet":
        passed_on_schema(rows, out)
    elif isinstance(rows, ParquetRows):
        check_passed_on_to_json(rows)
