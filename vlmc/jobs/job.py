"""The job: every question of every row through the model, into a file that can be resumed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vlmc.jobs.audit import Audit
from vlmc.jobs.file_index import FileIndex, InputChanges, refuse_changes
from vlmc.jobs.input.image_files import ImageFiles
from vlmc.jobs.input.openai_batch import BatchRows
from vlmc.jobs.input.prompts import Prompt
from vlmc.jobs.input.questions import Questions
from vlmc.jobs.input.rows import Rows
from vlmc.jobs.ledger import locked_ledger
from vlmc.jobs.output.failures import Failures
from vlmc.jobs.output.files import OutputFiles
from vlmc.jobs.output.journal import Journal, encode_line, recover, replace_lines
from vlmc.jobs.output.openai_lines import TokenModel
from vlmc.jobs.preflight import check_job
from vlmc.jobs.question_runner import Model, QuestionRunner
from vlmc.jobs.settings import JobSettings
from vlmc.jobs.stop import Stop
from vlmc.jobs.summary import JobSummary
from vlmc.progress.channel import report
from vlmc.progress.events import Progress
from vlmc.runtime.requests.scores import ScoreMeasure


class JobModel(Model, TokenModel, Protocol):
    """What every kind of job needs of a loaded artifact."""


def run_job(
    model: JobModel,
    rows: Rows,
    prompts: Sequence[Prompt],
    out: Path,
    *,
    artifact: str,
    tiles: str,
    choices: Sequence[str] | None = None,
    max_new_tokens: int = 5,
    confidence: bool = False,
    measure: ScoreMeasure = "logprob",
    retry_errors: bool = False,
    strict_input: bool = False,
    thresholds: str | None = None,
    stop: Stop | None = None,
    audit: Audit | None = None,
) -> JobSummary:
    """Ask every question of every row and write a line each to `out`, a .jsonl or .parquet file.

    All questions of a row follow each other, so that the runtime encodes its image once.
    With `choices`, the job's or a question's own, the answer is the choice of the highest
    `measure`, and `scores` has it of all.
    `confidence` adds the mean and the least probability of a generated answer's tokens. A
    request that fails becomes a line with its error. `stop` may end the job early, and `audit`
    answers a sample again.

    If the same job began `out`, it resumes, and `retry_errors` repeats the questions that ended
    in an error. Artifact, tile rule, prompts, choices, thresholds and a table's content must be
    the same: `artifact` is the artifact's identity, `tiles` the rule in use, and `thresholds` the
    digest of the thresholds that the model decides by. Image files may be added,
    removed and changed, unless `strict_input` refuses it: new ones get new rows, and the lines of
    the others stay as they are.

    `UsageError` for a combination that cannot run or an `out` that belongs to another job,
    before the model is asked anything; `IntegrityError` if `out` was changed or damaged.
    """
    started_at = time.monotonic()
    check_job(rows, prompts, out, choices, max_new_tokens, confidence)
    settings = JobSettings(_tuple(choices), max_new_tokens, confidence, measure)
    ledger = settings.ledger(rows, prompts, artifact=artifact, tiles=tiles, thresholds=thresholds)
    form = settings.form(model, isinstance(rows, BatchRows), out.suffix != ".parquet")
    stop = stop or Stop()
    runner = QuestionRunner(model, form, choices, max_new_tokens, measure, stop, audit)
    with locked_ledger(out) as ledger_file:
        files = OutputFiles.of(out)
        ledger_file.bind(ledger, out, started=files.started)
        files.remove_leftovers()
        index = None
        if isinstance(rows, ImageFiles):
            index = FileIndex(files.index, rows, files.started)
            rows = index.rows
            if strict_input:
                refuse_changes(out, index.changes)
        questions = Questions(rows, prompts)
        passage = _Passage(questions, runner, files)
        with files.opened(rows, form.columns, lambda: passage.is_complete):
            passage.recover()
            resumed = passage.done
            if index is not None:
                index.accept(lambda row: not passage.keeps(row, retry_errors))
                index.save()
            if retry_errors:
                passage.retry()
            passage.complete()
    changes = InputChanges() if index is None else index.changes
    summary = _Summary(rows, runner, started_at, changes)
    return summary.of(passage.done, questions.total, passage.failures, resumed)


def stream_job(
    model: JobModel,
    rows: Rows,
    prompts: Sequence[Prompt],
    write: Callable[[bytes], object],
    *,
    choices: Sequence[str] | None = None,
    max_new_tokens: int = 5,
    confidence: bool = False,
    measure: ScoreMeasure = "logprob",
    stop: Stop | None = None,
    audit: Audit | None = None,
) -> JobSummary:
    """As `run_job`, but `write` gets each line, a JSON object, as soon as it is answered."""
    started_at = time.monotonic()
    check_job(rows, prompts, None, choices, max_new_tokens, confidence)
    settings = JobSettings(_tuple(choices), max_new_tokens, confidence, measure)
    form = settings.form(model, isinstance(rows, BatchRows), True)
    stop = stop or Stop()
    runner = QuestionRunner(model, form, choices, max_new_tokens, measure, stop, audit)
    questions, failures, done = Questions(rows, prompts), Failures(), 0
    with closing(runner.lines(questions.read())) as lines:
        for question, line in lines:
            write(encode_line(line))
            failures.add(question.line, line)
            done += 1
            report(Progress("answers", done, questions.total, len(failures)))
    summary = _Summary(rows, runner, started_at, InputChanges())
    return summary.of(done, questions.total, failures, 0)


@dataclass(frozen=True, slots=True)
class _Summary:
    """What a summary says beside the counts of lines."""

    rows: Rows
    runner: QuestionRunner
    started_at: float
    changes: InputChanges

    def of(self, done: int, total: int, failures: Failures, resumed: int) -> JobSummary:
        runner = self.runner
        return JobSummary(
            rows=len(self.rows),
            answers=done - len(failures),
            errors=len(failures),
            reasons=tuple(failures.most_frequent()),
            resumed=resumed,
            remaining=total - done,
            stopped=runner.stop.reason if done < total else None,
            seconds=time.monotonic() - self.started_at,
            changes=self.changes,
            left_out=self.rows.left_out,
            rotation_ignored=runner.notes["rotation_ignored"],
            clipped_to_8_bits=runner.notes["clipped_to_8_bits"],
            audit=None if runner.audit is None else runner.audit.result,
        )


def _tuple(choices: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if choices is None else tuple(choices)


class _Passage:
    """A job's passage over its questions: lines that are `done`, and their `failures`."""

    def __init__(self, questions: Questions, runner: QuestionRunner, files: OutputFiles) -> None:
        self._questions = questions
        self._runner = runner
        self._files = files
        self.done, self.failures = 0, Failures()

    @property
    def is_complete(self) -> bool:
        """Whether every line is there."""
        return self.done == self._questions.total

    def recover(self) -> None:
        """Count the lines of an earlier run, and finish its retry if that was killed."""
        self._recover()
        if self._files.corrections.exists():
            recover(self._files.corrections, lambda _line, _values: True)
            self._apply_corrections()

    def keeps(self, row: int, retry_errors: bool) -> bool:
        """Whether a line of the row is done and will not be repeated."""
        return any(
            line < self.done and not (retry_errors and line in self.failures)
            for line in self._questions.lines_of(row)
        )

    def retry(self) -> None:
        """Ask again where the journal holds an error."""
        failed = frozenset(self.failures)
        if not failed:
            return
        again = (question for question in self._questions.read() if question.line in failed)
        with (
            Journal(self._files.corrections) as journal,
            closing(self._runner.lines(again)) as lines,
        ):
            for question, line in lines:
                journal.append(line)
                self.failures.remove(question.line)
                self.failures.add(question.line, line)
                self._report()
        self._apply_corrections()

    def complete(self) -> None:
        """Ask what the journal does not hold yet."""
        self._report()
        if self.is_complete:
            return
        with (
            Journal(self._files.journal) as journal,
            closing(self._runner.lines(self._questions.read(self.done))) as lines,
        ):
            for question, line in lines:
                journal.append(line)
                self.done += 1
                self.failures.add(question.line, line)
                self._report()

    def _recover(self) -> None:
        finished = recover(self._files.journal, self._questions.belongs)
        self.done, self.failures = finished.lines, finished.failures

    def _apply_corrections(self) -> None:
        replace_lines(self._files.journal, self._files.corrections)
        self._recover()

    def _report(self) -> None:
        report(Progress("answers", self.done, self._questions.total, len(self.failures)))
