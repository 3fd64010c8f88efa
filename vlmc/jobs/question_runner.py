"""Questions through the model, each with its line of the output."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Protocol

from vlmc.errors import HardwareError, ModelLostError, VlmcError
from vlmc.files.units import shorten
from vlmc.jobs.audit import Audit
from vlmc.jobs.input.fetch import Fetcher
from vlmc.jobs.input.questions import Question
from vlmc.jobs.input.rows import InputRow
from vlmc.jobs.input.tar import KEY
from vlmc.jobs.output.failures import line_error
from vlmc.jobs.picture_notes import PictureNotes
from vlmc.jobs.stop import Stop
from vlmc.runtime.requests.answer import Answer
from vlmc.runtime.requests.request import Request
from vlmc.runtime.requests.scores import Choose, Scored, ScoreMeasure
from vlmc.runtime.scheduler.sequence import Sampling

Work = Sampling | Choose
Outcome = Answer | Scored | VlmcError

MAX_FAILED_ROWS = 20


class Model(Protocol):
    """What a job needs of a loaded artifact.

    Outcomes come in the order of the requests; an error that belongs to one request comes in
    its place, an error that is raised ends the job.
    """

    def try_each(
        self, requests: Iterable[tuple[Request, Work]]
    ) -> Generator[Outcome, None, None]: ...


class LineForm(Protocol):
    """Makes lines of an output."""

    def line(self, question: Question, outcome: Outcome) -> dict[str, Any]:
        """The line of a question with its outcome."""


@dataclass(frozen=True, slots=True)
class QuestionRunner:
    """Runs questions until `stop`: answers of up to `max_new_tokens`, or the best of `choices` by
    `measure`. A question's own choices, or a batch request's own sampling, come first.

    `form` makes the lines, and `audit` checks a sample of the answers. `notes` counts the pictures
    as they are answered.
    """

    model: Model
    form: LineForm
    choices: Sequence[str] | None
    max_new_tokens: int
    measure: ScoreMeasure = "logprob"
    stop: Stop = field(default_factory=Stop)
    audit: Audit | None = None
    notes: PictureNotes = field(default_factory=PictureNotes)

    def lines(
        self, questions: Iterable[Question]
    ) -> Generator[tuple[Question, dict[str, Any]], None, None]:
        """Each question with its line of the output, in order.

        A request that raises because it does not fit in memory or fails on the device is run
        again alone. If it fails again it becomes its own error line, and the questions after it
        go on.

        Raises:
            HardwareError: `MAX_FAILED_ROWS` rows in succession failed on the device, or the model
                is lost.
        """
        remaining = self.stop.until(questions)
        again: deque[Question] = deque()
        failed_rows: set[int] = set()

        def upcoming() -> Iterator[Question]:
            while again:
                yield again.popleft()
            # Not `yield from`, which would close `remaining` with this generator.
            for question in remaining:  # noqa: UP028
                yield question

        while True:
            waiting: deque[Question] = deque()
            try:
                with closing(self._run(upcoming(), waiting)) as answered:
                    for question, line in answered:
                        self.stop.announce()
                        if line_error(line) is None:
                            failed_rows.clear()
                        else:
                            self.stop.add_error(question.row.number)
                        yield question, line
                return
            except (HardwareError, MemoryError, RuntimeError) as raised:
                if _request_error(raised) is None or not waiting:
                    raise
            question = waiting.popleft()
            # The model may have read ahead: what waits is asked again.
            again.extendleft(reversed(waiting))
            # Alone, since questions on the same images run together and need more memory.
            line = self._alone(question)
            error = line_error(line)
            if error is None:
                failed_rows.clear()
            else:
                failed_rows.add(question.row.number)
                self.stop.add_error(question.row.number)
            yield question, line
            if len(failed_rows) == MAX_FAILED_ROWS:
                raise HardwareError(
                    f"{MAX_FAILED_ROWS} rows in succession failed on the device, the last with: "
                    f"{error}\nThe lines so far are kept. Run the same command again to "
                    "resume, with --retry-errors to repeat the rows that failed."
                )

    def _alone(self, question: Question) -> dict[str, Any]:
        """The line of one question, with its error if it raises."""
        try:
            ((_, line),) = self._run(iter([question]), deque())
            return line
        except (HardwareError, MemoryError, RuntimeError) as raised:
            error = _request_error(raised)
            if error is None:
                raise
            return self.form.line(question, error)

    def _run(
        self, questions: Iterator[Question], waiting: deque[Question]
    ) -> Generator[tuple[Question, dict[str, Any]], None, None]:
        """Each question with its line; `waiting` holds those that were read and not yielded."""

        fetcher = Fetcher()

        # Questions without an image never reach the model and wait for their turn.
        def requests() -> Iterator[tuple[Request, Work]]:
            for question in questions:
                waiting.append(question)
                if not question.row.missing:
                    image = fetcher.started(question.row.image)
                    yield (image, question.prompt.text), self._work(question)

        def without_image() -> Iterator[tuple[Question, dict[str, Any]]]:
            while waiting and waiting[0].row.missing:
                question = waiting.popleft()
                yield question, self.form.line(question, _no_image(question.row))

        outcomes = self.model.try_each(requests())
        with closing(fetcher), closing(outcomes):
            try:
                for outcome in outcomes:
                    yield from without_image()
                    if not waiting:
                        raise VlmcError("the model gave more answers than it was asked questions")
                    question = waiting.popleft()
                    yield question, self._line(question, outcome)
            except (HardwareError, MemoryError, RuntimeError):
                yield from without_image()
                raise
        yield from without_image()
        if waiting:
            raise VlmcError(
                f"the model ended with {len(waiting)} questions unanswered; the lines before "
                "are kept, run the same command again to resume"
            )

    def _line(self, question: Question, outcome: Outcome) -> dict[str, Any]:
        if isinstance(outcome, ModelLostError):
            raise outcome
        if isinstance(outcome, VlmcError):
            return self.form.line(question, outcome)
        if isinstance(outcome, Scored):
            if not all(map(math.isfinite, outcome.scores.values())):
                not_finite = VlmcError("a choice's log-probability is not a finite number")
                return self.form.line(question, not_finite)
            answer = outcome.answer
        else:
            answer = outcome
        self.notes.add(question.row, answer.image_notes)
        if self.audit is not None:
            self.audit.check(question, self._work(question), answer.text)
        return self.form.line(question, outcome)

    def _work(self, question: Question) -> Work:
        if question.row.batch is not None:
            return question.row.batch.sampling_up_to(self.max_new_tokens)
        choices = question.prompt.choices or self.choices
        if choices:
            return Choose(tuple(choices), self.measure)
        return Sampling(self.max_new_tokens)


def _request_error(error: Exception) -> VlmcError | None:
    """The error as that of one request, or None if it is of another kind."""
    if isinstance(error, ModelLostError):
        return None
    if isinstance(error, HardwareError):
        return error
    # torch raises a RuntimeError where a CPU or GPU has too little memory.
    if isinstance(error, MemoryError) or "memory" in str(error):
        said = shorten(str(error).strip().partition("\n")[0]) or type(error).__name__
        return HardwareError(
            f"the request does not fit in memory ({said}). Use fewer images, or a tile rule with "
            "fewer tiles"
        )
    return None


def _no_image(row: InputRow) -> VlmcError:
    if (key := row.columns.get(KEY)) is not None:
        return VlmcError(f"the sample {shorten(str(key))} has no image; add one or remove it")
    return VlmcError(
        f"row {row.number} names no image; fill in its column image. A table of text alone has no "
        "such column"
    )
