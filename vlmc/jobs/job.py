"""The job: every question of every row through the model, into a file that can be resumed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from vlmc.files.atomic import remove_temporaries
from vlmc.jobs.input.prompts import Prompt
from vlmc.jobs.input.questions import Questions
from vlmc.jobs.input.rows import Rows
from vlmc.jobs.ledger import Ledger, locked_ledger
from vlmc.jobs.output.journal import (
    Journal,
    encode_line,
    read_journal,
    recover,
    replace_lines,
    write_chunks,
)
from vlmc.jobs.output.parquet import read_parquet_lines, write_parquet
from vlmc.jobs.preflight import check_job
from vlmc.jobs.question_runner import Model, QuestionRunner
from vlmc.progress.channel import report
from vlmc.progress.events import Progress


@dataclass(frozen=True, slots=True)
class JobSummary:
    """`answers` and `errors` count the output's lines, `resumed` those that were there before.

    `left_out` counts, by kind, the files of the input that are not images. `seconds` is of this
    run alone, as are the counts of its pictures: `rotation_ignored` of those whose EXIF
    orientation was ignored, `clipped_to_8_bits` of grey ones of more bits, clipped to 0..255.
    """

    rows: int
    answers: int
    errors: int
    resumed: int
    seconds: float
    left_out: Mapping[str, int]
    rotation_ignored: int
    clipped_to_8_bits: int


def run_job(
    model: Model,
    rows: Rows,
    prompts: Sequence[Prompt],
    out: Path,
    *,
    artifact: str,
    tiles: str,
    choices: Sequence[str] | None = None,
    max_new_tokens: int = 5,
    retry_errors: bool = False,
) -> JobSummary:
    """Ask every question of every row and write a line each to `out`, `.jsonl` or `.parquet`.

    All questions of a row follow each other, so that the runtime encodes its image once.
    With `choices` the answer is the choice of highest log-probability, and `scores` has them
    all. An image that cannot be read becomes a line with its error. If the same job began `out`,
    it resumes; `retry_errors` repeats the questions that ended in an error. `artifact` is the
    artifact's identity and `tiles` the rule in use: together with input, prompts and choices they
    must not change.

    `UsageError` for a combination that cannot run or an `out` that belongs to another job,
    before the model sees anything; `IntegrityError` if `out` was changed or damaged.
    """
    started_at = time.monotonic()
    check_job(rows, prompts, out, choices, max_new_tokens)
    ledger = Ledger(
        artifact=artifact,
        tiles=tiles,
        input=rows.identity,
        prompts=None if rows.prompted else [[p.question, p.text] for p in prompts],
        choices=list(choices) if choices else None,
        max_new_tokens=None if choices else max_new_tokens,
    )
    questions = Questions(rows, prompts)
    asking = QuestionRunner(model, choices, max_new_tokens, other_columns=out.suffix == ".jsonl")
    with locked_ledger(out) as ledger_file:
        files = _Files.of(out)
        ledger_file.bind(ledger, out, started=files.started)
        files.remove_leftovers()
        with files.opened(rows):
            passage = _Passage(questions, asking, files)
            resumed = passage.done
            if retry_errors:
                passage.retry()
            passage.complete()
    errors = len(passage.failed)
    seconds = time.monotonic() - started_at
    return JobSummary(
        rows=len(rows),
        answers=questions.total - errors,
        errors=errors,
        resumed=resumed,
        seconds=seconds,
        left_out=rows.left_out,
        rotation_ignored=asking.notes["rotation_ignored"],
        clipped_to_8_bits=asking.notes["clipped_to_8_bits"],
    )


@dataclass(frozen=True, slots=True)
class _Files:
    """The output and the files beside it while a job runs.

    `journal` gathers the lines, and is the output itself unless that is Parquet; then it is
    there until every line is, and where both exist it is the one that counts. `corrections`
    gathers those that a retry replaces.
    """

    out: Path
    journal: Path
    corrections: Path

    @classmethod
    def of(cls, out: Path) -> _Files:
        parquet = out.suffix == ".parquet"
        return cls(
            out,
            out.with_name(out.name + ".partial.jsonl") if parquet else out,
            out.with_name(out.name + ".retry.jsonl"),
        )

    @property
    def started(self) -> bool:
        return self.out.exists() or self.journal.exists()

    def remove_leftovers(self) -> None:
        """What a kill left unfinished, or what belongs to an output that was removed."""
        for path in (self.out, self.journal):
            remove_temporaries(path)
        if not self.started:
            self.corrections.unlink(missing_ok=True)

    @contextmanager
    def opened(self, rows: Rows) -> Iterator[None]:
        """Have the journal within, and the output in its own form once all is done."""
        if self.journal == self.out:
            yield
            return
        as_unpacked = None
        if self.out.exists() and not self.journal.exists():
            write_chunks(self.journal, map(encode_line, read_parquet_lines(self.out)))
            as_unpacked = _version(self.journal)
        yield
        if _version(self.journal) != as_unpacked:
            write_parquet(self.out, read_journal(self.journal), rows)
        self.journal.unlink()


def _version(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_size


class _Passage:
    """A job's passage over its questions: lines that are `done`, and which of them `failed`."""

    def __init__(self, questions: Questions, asking: QuestionRunner, files: _Files) -> None:
        self._questions = questions
        self._asking = asking
        self._files = files
        self._recover()
        if files.corrections.exists():
            # From a retry that was killed.
            recover(files.corrections, lambda _line, _values: True)
            self._take_over_corrections()

    def retry(self) -> None:
        """Ask again where the journal holds an error."""
        failed = frozenset(self.failed)
        if not failed:
            return
        again = (question for question in self._questions.read() if question.line in failed)
        with (
            Journal(self._files.corrections) as journal,
            closing(self._asking.lines(again)) as lines,
        ):
            for question, line in lines:
                journal.append(line)
                if line["error"] is None:
                    self.failed.remove(question.line)
                self._report()
        self._take_over_corrections()

    def complete(self) -> None:
        """Ask what the journal does not hold yet."""
        self._report()
        if self.done == self._questions.total:
            return
        with (
            Journal(self._files.journal) as journal,
            closing(self._asking.lines(self._questions.read(self.done))) as lines,
        ):
            for question, line in lines:
                journal.append(line)
                self.done += 1
                if line["error"] is not None:
                    self.failed.add(question.line)
                self._report()

    def _recover(self) -> None:
        finished = recover(self._files.journal, self._questions.belongs)
        self.done, self.failed = finished.lines, finished.failed

    def _take_over_corrections(self) -> None:
        replace_lines(self._files.journal, self._files.corrections)
        self._recover()

    def _report(self) -> None:
        report(Progress("answers", self.done, self._questions.total, len(self.failed)))
