"""The checks of a job before its first row."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from vlmc.errors import UsageError
from vlmc.files.units import shorten
from vlmc.jobs.input.openai_batch import BatchRows
from vlmc.jobs.input.parquet import ParquetRows
from vlmc.jobs.input.prompts import Prompt, checked_choices
from vlmc.jobs.input.rows import Rows
from vlmc.jobs.output.columns import output_columns
from vlmc.jobs.output.parquet import check_passed_on_to_json, passed_on_schema
from vlmc.text.prompt import IMAGE_PLACEHOLDER, IMAGE_TOKEN


def check_job(
    rows: Rows,
    prompts: Sequence[Prompt],
    out: Path | None,
    choices: Sequence[str] | None,
    max_new_tokens: int,
    confidence: bool,
) -> None:
    """Raise `UsageError` for a job that cannot run, or whose output cannot be written.

    `out` is None for JSON lines to a stream.
    """
    suffix = None if out is None else out.suffix
    check_questions(rows, prompts, suffix, choices, max_new_tokens, confidence)
    if out is not None:
        _check_output(out, rows)


def check_questions(
    rows: Rows,
    prompts: Sequence[Prompt],
    suffix: str | None,
    choices: Sequence[str] | None,
    max_new_tokens: int,
    confidence: bool,
) -> None:
    """Raise `UsageError` for a job that cannot run, or whose lines an output of the suffix cannot
    hold; a stream of JSON lines has none."""
    if rows.prompted and prompts:
        raise UsageError(
            f"{rows.source}: its rows have their own prompts, so --prompt and --prompts cannot "
            "be used; leave them out, or remove the column prompt"
        )
    if not rows.prompted and not prompts:
        raise UsageError(f"{rows.source}: has no column prompt; give --prompt or --prompts")
    if isinstance(rows, BatchRows):
        _check_batch(rows, suffix, choices, confidence)
    _check_placeholders(rows, prompts)
    clashes = [name for name in rows.columns if name in output_columns(confidence)]
    if clashes:
        raise UsageError(
            f"{rows.source}: the column {clashes[0]!r} has the name of one that the output adds; "
            "rename it"
        )
    if choices is not None:
        checked_choices(choices)
    all_scored = choices is not None or (prompts and all(p.choices for p in prompts))
    if confidence and all_scored:
        raise UsageError(
            "--confidence works for generated answers only; leave it out, since scores has the "
            "log-probability of every choice"
        )
    if max_new_tokens < 1:
        raise UsageError(f"max_new_tokens is {max_new_tokens}; it must be 1 or more")
    if suffix == ".parquet":
        passed_on_schema(rows, Path(suffix))
    elif isinstance(rows, ParquetRows):
        check_passed_on_to_json(rows)


def _check_batch(
    rows: BatchRows, suffix: str | None, choices: Sequence[str] | None, confidence: bool
) -> None:
    if choices is not None or confidence:
        raise UsageError(
            f"{rows.source}: is an OpenAI batch, whose results have no place for --choices and "
            "--confidence; leave them out, or write the rows as a table of image and prompt"
        )
    if suffix == ".parquet":
        raise UsageError(
            f"{rows.source}: is an OpenAI batch, whose results are JSON lines; end the output in "
            ".jsonl"
        )


def _check_output(out: Path, rows: Rows) -> None:
    if out.suffix not in {".jsonl", ".ndjson", ".parquet"}:
        raise UsageError(f"{out}: the output must end in .jsonl, .ndjson or .parquet")
    if out.is_dir():
        raise UsageError(
            f"{out}: is a folder; choose another output, or add --ray to resume a job that ran "
            "with it"
        )
    if out.exists() and Path(rows.source).exists() and out.samefile(rows.source):
        raise UsageError(f"{out}: is the input itself; choose another output")
    folder = next(folder for folder in out.absolute().parents if folder.exists())
    for place in [folder, *([out] if out.exists() else [])]:
        if not os.access(place, os.W_OK) or (place == folder and not folder.is_dir()):
            raise UsageError(
                f"{out}: cannot be written, since {place} is "
                f"{'not writable' if folder.is_dir() else 'not a folder'}; choose another output"
            )


def _check_placeholders(rows: Rows, prompts: Sequence[Prompt]) -> None:
    """Refuse a prompt that fits no row: it names more or fewer images than any row has."""
    for prompt in prompts:
        text = shorten(repr(prompt.text))
        if IMAGE_TOKEN in prompt.text:
            raise UsageError(
                f"the prompt {text} has {IMAGE_TOKEN}, which stands for image features; write "
                f"{IMAGE_PLACEHOLDER} where an image belongs"
            )
        marks = prompt.text.count(IMAGE_PLACEHOLDER)
        if marks and marks not in (counts := rows.image_counts()):
            have = " or ".join(map(str, sorted(counts))) or "0"
            raise UsageError(
                f"the prompt {text} has {marks} {IMAGE_PLACEHOLDER} placeholder(s), but the rows "
                f"of {rows.source} have {have} image(s); write {IMAGE_PLACEHOLDER} once for each "
                "image of a row, or leave it out"
            )
