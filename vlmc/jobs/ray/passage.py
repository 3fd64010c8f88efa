"""A job's passage over its questions on a cluster: which lines are done, and which remain."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import chain

from vlmc.errors import IntegrityError
from vlmc.jobs.audit import AuditResult
from vlmc.jobs.file_index import InputChanges
from vlmc.jobs.input.questions import Questions
from vlmc.jobs.input.rows import Rows
from vlmc.jobs.output.failures import Failures
from vlmc.jobs.output.part_form import PartForm
from vlmc.jobs.output.parts import PartsFolder, RowRange, uncovered
from vlmc.jobs.picture_notes import PictureNotes
from vlmc.jobs.ray.part import Part, PartDone, cut_parts, failed_parts
from vlmc.jobs.ray.pool import Pool
from vlmc.jobs.stop import Stop
from vlmc.jobs.summary import JobSummary
from vlmc.progress.channel import report
from vlmc.progress.events import Progress


class Passage:
    """Counts the lines of `parts` that an earlier run has written, and has the rest answered."""

    def __init__(
        self,
        folder: PartsFolder,
        form: PartForm,
        questions: Questions,
        parts: Sequence[RowRange],
    ) -> None:
        self.questions = questions
        self._folder, self._form, self._parts = folder, form, list(parts)
        self._failures, self._notes = Failures(), PictureNotes()
        self._audit: AuditResult | None = None
        self._done = self._resumed = self._error_rows = 0

    def scan(self) -> None:
        """Read the parts that are there.

        Raises:
            IntegrityError: one is damaged, or does not hold the lines of this job.
        """
        for rows in self._parts:
            name = rows.name + self._folder.suffix
            lines = self._form.decode(self._folder.read(name), name)
            numbers = self._lines_of(rows)
            if len(lines) != len(numbers) or not all(map(self.questions.belongs, numbers, lines)):
                raise IntegrityError(
                    f"{self._folder}/{name}: does not hold the lines that this job writes there, "
                    "so it was changed; remove it, and its rows are answered again"
                )
            for number, line in zip(numbers, lines, strict=True):
                self._failures.add(number, line)
            self._resumed += len(lines)
        self._done = self._resumed

    def keeps(self, row: int, retry_errors: bool) -> bool:
        """Whether lines of the row are done, and one of them will not be repeated."""
        if not any(rows.first <= row <= rows.last for rows in self._parts):
            return False
        lines = self.questions.lines_of(row)
        return not (retry_errors and all(line in self._failures for line in lines))

    def run(self, pool: Pool, part_rows: int, retry_errors: bool, stop: Stop) -> None:
        """Have the workers answer what remains; with `retry_errors` what failed too, and first."""
        questions, total = self.questions, self.questions.total
        again = (
            failed_parts(questions, self._parts, frozenset(self._failures))
            if retry_errors and self._failures
            else ()
        )
        gaps = list(uncovered(self._parts, len(questions.rows)))
        start = questions.lines_of(gaps[0].first).start if gaps else total
        self._report(pool)
        new = cut_parts(questions.read(start), gaps, part_rows)
        for found in pool.run(chain(again, new), stop):
            if found is not None:
                self._add(*found)
            unwritten = [one for worker in pool.workers for one in worker.progress]
            stop.check_errors(self._error_rows + sum(one.error_rows for one in unwritten))
            self._report(pool)

    def summary(
        self, rows: Rows, changes: InputChanges, started_at: float, stop: Stop
    ) -> JobSummary:
        """What was done; `started_at` is of the monotonic clock."""
        remaining = self.questions.total - self._done
        return JobSummary(
            rows=len(rows),
            answers=self._done - len(self._failures),
            errors=len(self._failures),
            reasons=tuple(self._failures.most_frequent()),
            resumed=self._resumed,
            remaining=remaining,
            stopped=stop.reason if remaining else None,
            seconds=time.monotonic() - started_at,
            changes=changes,
            left_out=rows.left_out,
            rotation_ignored=self._notes["rotation_ignored"],
            clipped_to_8_bits=self._notes["clipped_to_8_bits"],
            audit=self._audit,
        )

    def _add(self, part: Part, done: PartDone) -> None:
        """Count what a worker wrote of a part."""
        if part.replaces:
            for question in part.questions[: done.lines]:
                self._failures.remove(question.line)
        else:
            self._done += done.lines
        for line, values in done.failures.items():
            self._failures.add(line, values)
        rows = {question.row.number: question.row for question in part.questions}
        self._error_rows += len(
            {question.row.number for question in part.questions if question.line in done.failures}
        )
        for number, notes in done.notes:
            self._notes.add(rows[number], notes)
        if done.audit is not None:
            self._audit = done.audit if self._audit is None else self._audit.plus(done.audit)

    def _report(self, pool: Pool) -> None:
        unwritten = [one for worker in pool.workers for one in worker.progress]
        total = self.questions.total
        # Lines that are answered again count twice for a moment.
        done = min(total, self._done + sum(one.lines for one in unwritten))
        errors = len(self._failures) + sum(one.errors for one in unwritten)
        shares = tuple(
            worker.done + sum(one.lines for one in worker.progress) for worker in pool.workers
        )
        report(Progress("answers", done, total, errors, shares=shares))

    def _lines_of(self, rows: RowRange) -> range:
        first, last = map(self.questions.lines_of, (rows.first, rows.last))
        return range(first.start, last.stop)
