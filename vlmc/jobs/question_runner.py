"""Questions through the model, each with its line of the output."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from vlmc.errors import HardwareError, VlmcError
from vlmc.files.units import shorten
from vlmc.image.decode import ImageNote
from vlmc.jobs.input.questions import Question
from vlmc.jobs.input.rows import ImageInput, InputRow
from vlmc.jobs.output.columns import output_columns
from vlmc.jobs.picture_notes import PictureNotes
from vlmc.runtime.requests.scores import ScoreMeasure, Scores

Request = tuple[ImageInput | None, str]

MAX_ERROR_CHARACTERS = 1000
MAX_FAILED_ROWS = 20


class Answer(Protocol):
    """The parts of the runtime's answer that a job reads."""

    @property
    def text(self) -> str: ...

    @property
    def image_tokens(self) -> int: ...

    @property
    def image_notes(self) -> Sequence[Collection[ImageNote]]: ...


@runtime_checkable
class WithConfidence(Protocol):
    """An answer with the log-probability of each of its tokens."""

    @property
    def token_logprobs(self) -> Sequence[float]: ...


class Scored(Protocol):
    """Scores of the choices, and the best of them as an answer."""

    @property
    def scores(self) -> Scores: ...

    @property
    def answer(self) -> Answer: ...


class Model(Protocol):
    """What a job needs of a loaded artifact.

    Outcomes come in the order of the requests; an error that belongs to one request comes in
    its place, an error that is raised ends the job.
    """

    def try_stream(
        self, requests: Iterable[Request], *, max_new_tokens: int = 5
    ) -> Iterator[Answer | VlmcError]: ...

    def try_score(
        self, requests: Iterable[Request], *, choices: Sequence[str], measure: ScoreMeasure
    ) -> Iterator[Scored | VlmcError]: ...


@dataclass(frozen=True, slots=True)
class QuestionRunner:
    """Runs questions: answers of up to `max_new_tokens`, or scores of `choices` by `measure`.

    `other_columns` says whether a line also holds the input's other columns, `confidence`
    whether it holds the probabilities of a generated answer's tokens. `notes` counts the pictures
    as they are answered.
    """

    model: Model
    choices: Sequence[str] | None
    max_new_tokens: int
    other_columns: bool
    confidence: bool = False
    measure: ScoreMeasure = "logprob"
    notes: PictureNotes = field(default_factory=PictureNotes)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a line before the input's other columns."""
        return output_columns(self.confidence)

    def lines(
        self, questions: Iterable[Question]
    ) -> Generator[tuple[Question, dict[str, Any]], None, None]:
        """Each question with its line of the output, in order.

        A request that raises because it does not fit in memory or fails on the device is run
        again alone. If it fails again it becomes its own error line, and the questions after it
        go on.

        Raises:
            HardwareError: `MAX_FAILED_ROWS` rows in succession failed on the device.
        """
        remaining = iter(questions)
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
                        if line["error"] is None:
                            failed_rows.clear()
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
            if line["error"] is None:
                failed_rows.clear()
            else:
                failed_rows.add(question.row.number)
            yield question, line
            if len(failed_rows) == MAX_FAILED_ROWS:
                raise HardwareError(
                    f"{MAX_FAILED_ROWS} rows in succession failed on the device, the last with: "
                    f"{line['error']}\nThe lines so far are kept. Run the same command again to "
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
            return self._line(question, error)

    def _run(
        self, questions: Iterator[Question], waiting: deque[Question]
    ) -> Generator[tuple[Question, dict[str, Any]], None, None]:
        """Each question with its line; `waiting` holds those that were read and not yielded."""

        # Questions without an image never reach the model and wait for their turn.
        def requests() -> Iterator[Request]:
            for question in questions:
                waiting.append(question)
                if not question.row.missing:
                    yield question.row.image, question.prompt.text

        def without_image() -> Iterator[tuple[Question, dict[str, Any]]]:
            while waiting and waiting[0].row.missing:
                question = waiting.popleft()
                yield question, self._line(question, _no_image(question.row))

        with closing(self._outcomes(requests())) as outcomes:
            try:
                for outcome in outcomes:
                    yield from without_image()
                    if not waiting:
                        raise VlmcError("the model gave more answers than it was asked questions")
                    question = waiting.popleft()
                    if isinstance(outcome, VlmcError):
                        yield question, self._line(question, outcome)
                    else:
                        answer, columns = outcome
                        self.notes.add(question.row, answer.image_notes)
                        yield question, self._line(question, columns)
            except (HardwareError, MemoryError, RuntimeError):
                yield from without_image()
                raise
        yield from without_image()
        if waiting:
            raise VlmcError(
                f"the model ended with {len(waiting)} questions unanswered; the lines before "
                "are kept, run the same command again to resume"
            )

    def _outcomes(
        self, requests: Iterator[Request]
    ) -> Generator[tuple[Answer, dict[str, Any] | VlmcError] | VlmcError, None, None]:
        """Each request's answer, and the columns that it fills."""
        if self.choices is None:
            for outcome in self.model.try_stream(requests, max_new_tokens=self.max_new_tokens):
                if isinstance(outcome, VlmcError):
                    yield outcome
                else:
                    yield outcome, {**_answered(outcome), **self._confidence(outcome)}
        else:
            scored = self.model.try_score(requests, choices=self.choices, measure=self.measure)
            for result in scored:
                if isinstance(result, VlmcError):
                    yield result
                else:
                    yield result.answer, self._scored(result)

    def _confidence(self, answer: Answer) -> dict[str, float]:
        """Mean and least probability of the answer's tokens, the stop token included."""
        if not self.confidence:
            return {}
        if not isinstance(answer, WithConfidence):
            raise VlmcError("this model gives no token probabilities; leave --confidence out")
        probabilities = [math.exp(logprob) for logprob in answer.token_logprobs]
        if not probabilities:
            return {}
        return {
            "mean_probability": math.fsum(probabilities) / len(probabilities),
            "least_probability": min(probabilities),
        }

    def _scored(self, result: Scored) -> dict[str, Any] | VlmcError:
        if not all(map(math.isfinite, result.scores.values())):
            return VlmcError("a choice's log-probability is not a finite number")
        return {"scores": result.scores.by(self.measure), **_answered(result.answer)}

    def _line(self, question: Question, outcome: dict[str, Any] | VlmcError) -> dict[str, Any]:
        line: dict[str, Any] = dict.fromkeys(self.columns)
        line["row"] = question.row.number
        line["image"] = question.row.name
        line["question"] = question.prompt.question
        line["prompt"] = question.prompt.text
        line.update(
            {"error": shorten(str(outcome), MAX_ERROR_CHARACTERS)}
            if isinstance(outcome, VlmcError)
            else outcome
        )
        if self.other_columns:
            line.update(question.row.columns)
        return line


def _answered(answer: Answer) -> dict[str, Any]:
    return {"answer": answer.text, "image_tokens": answer.image_tokens}


def _request_error(error: Exception) -> VlmcError | None:
    """The error as that of one request, or None if it is of another kind."""
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
    return VlmcError(
        f"row {row.number} names no image; fill in its column image. A table of text alone has no "
        "such column"
    )
