"""The job: every question of every row through the model, into a file that can be resumed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from vlmc.jobs.file_index import FileIndex, InputChanges, refuse_changes
from vlmc.jobs.input.image_files import ImageFiles
from vlmc.jobs.input.prompts import Prompt
from vlmc.jobs.input.questions import Questions
from vlmc.jobs.input.rows import Rows
from vlmc.jobs.ledger import Ledger, locked_ledger
from vlmc.jobs.output.failures import Failures
from vlmc.jobs.output.files import OutputFiles
from vlmc.jobs.output.journal import Journal, encode_line, recover, replace_lines
from vlmc.jobs.preflight import check_job
from vlmc.jobs.question_runner import Model, QuestionRunner
from vlmc.jobs.summary import JobSummary
from vlmc.progress.channel import report
from vlmc.progress.events import Progress
from vlmc.runtime.requests.scores import ScoreMeasure


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
    confidence: bool = False,
    measure: ScoreMeasure = "logprob",
    retry_errors: bool = False,
    strict_input: bool = False,
) -> JobSummary:
    """Ask every question of every row and write a line each to `out`, a .jsonl or .parquet file.

    All questions of a row follow each other, so that the runtime encodes its image once.
    With `choices` the answer is the choice of the highest `measure`, and `scores` has it of all.
    `confidence` adds the mean and the least probability of a generated answer's tokens. A
    request that fails becomes a line with its error.

    If the same job began `out`, it resumes, and `retry_errors` repeats the questions that ended
    in an error. Artifact, tile rule, prompts, choices and a table's content must be the same:
    `artifact` is the artifact's identity and `tiles` the rule in use. Image files may be added,
    removed and changed, unless `strict_input` refuses it: new ones get new rows, and the lines of
    the others stay as they are.

    `UsageError` for a combination that cannot run or an `out` that belongs to another job,
    before the model is asked anything; `IntegrityError` if `out` was changed or damaged.
    """
    started_at = time.monotonic()
    check_job(rows, prompts, out, choices, max_new_tokens, confidence)
    ledger = Ledger(
        artifact=artifact,
        tiles=tiles,
        input=rows.identity,
        prompts=None if rows.prompted else [[p.question, p.text] for p in prompts],
        choices=list(choices) if choices else None,
        max_new_tokens=None if choices else max_new_tokens,
        confidence=confidence,
        score=measure if choices else None,
    )
    other_columns = out.suffix != ".parquet"
    runner = QuestionRunner(model, choices, max_new_tokens, other_columns, confidence, measure)
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
        with files.opened(rows, runner.columns):
            passage = _Passage(questions, runner, files)
            resumed = passage.done
            if index is not None:
                index.accept(lambda row: not passage.keeps(row, retry_errors))
                index.save()
            if retry_errors:
                passage.retry()
            passage.complete()
    changes = InputChanges() if index is None else index.changes
    return _summary(rows, questions, passage.failures, resumed, started_at, changes, runner)


def stream_job(
    model: Model,
    rows: Rows,
    prompts: Sequence[Prompt],
    write: Callable[[bytes], object],
    *,
    choices: Sequence[str] | None = None,
    max_new_tokens: int = 5,
    confidence: bool = False,
    measure: ScoreMeasure = "logprob",
) -> JobSummary:
    """As `run_job`, but `write` gets each line, a JSON object, as soon as it is answered."""
    started_at = time.monotonic()
    check_job(rows, prompts, None, choices, max_new_tokens, confidence)
    runner = QuestionRunner(model, choices, max_new_tokens, True, confidence, measure)
    questions, failures = Questions(rows, prompts), Failures()
    with closing(runner.lines(questions.read())) as lines:
        for question, line in lines:
            write(encode_line(line))
            failures.add(question.line, line)
            report(Progress("answers", question.line + 1, questions.total, len(failures)))
    return _summary(rows, questions, failures, 0, started_at, InputChanges(), runner)


def _summary(
    rows: Rows,
    questions: Questions,
    failures: Failures,
    resumed: int,
    started_at: float,
    changes: InputChanges,
    runner: QuestionRunner,
) -> JobSummary:
    return JobSummary(
        rows=len(rows),
        answers=questions.total - len(failures),
        errors=len(failures),
        reasons=tuple(failures.most_frequent()),
        resumed=resumed,
        seconds=time.monotonic() - started_at,
        changes=changes,
        left_out=rows.left_out,
        rotation_ignored=runner.notes["rotation_ignored"],
        clipped_to_8_bits=runner.notes["clipped_to_8_bits"],
    )


class _Passage:
    """A job's passage over its questions: lines that are `done`, and their `failures`."""

    def __init__(self, questions: Questions, runner: QuestionRunner, files: OutputFiles) -> None:
        self._questions = questions
        self._runner = runner
        self._files = files
        self._recover()
        if files.corrections.exists():
            # From a retry that was killed.
            recover(files.corrections, lambda _line, _values: True)
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
        if self.done == self._questions.total:
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
