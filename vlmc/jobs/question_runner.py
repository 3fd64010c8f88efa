"""Questions through the model, each with its line of the output."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Protocol

from vlmc.errors import VlmcError
from vlmc.files.units import shorten
from vlmc.image.decode import ImageNote
from vlmc.jobs.input.questions import Question
from vlmc.jobs.input.rows import ImageInput, InputRow
from vlmc.jobs.picture_notes import PictureNotes

Request = tuple[ImageInput | None, str]
OUTPUT_COLUMNS = (
    "row",
    "image",
    "question",
    "prompt",
    "answer",
    "scores",
    "image_tokens",
    "error",
)

MAX_ERROR_CHARACTERS = 1000


class Answer(Protocol):
    """The parts of the runtime's answer that a job reads."""

    @property
    def text(self) -> str: ...

    @property
    def image_tokens(self) -> int: ...

    @property
    def image_notes(self) -> Sequence[Collection[ImageNote]]: ...


class Scored(Protocol):
    """Log-probabilities of the choices, and the best of them as an answer."""

    @property
    def scores(self) -> dict[str, float]: ...

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
        self, requests: Iterable[Request], *, choices: Sequence[str]
    ) -> Iterator[Scored | VlmcError]: ...


@dataclass(frozen=True, slots=True)
class QuestionRunner:
    """Runs questions: answers of up to `max_new_tokens`, or scores of `choices`.

    `other_columns` says whether a line also holds the input's other columns. `notes` counts the
    pictures as they are answered.
    """

    model: Model
    choices: Sequence[str] | None
    max_new_tokens: int
    other_columns: bool
    notes: PictureNotes = field(default_factory=PictureNotes)

    def lines(
        self, questions: Iterable[Question]
    ) -> Generator[tuple[Question, dict[str, Any]], None, None]:
        """Each question with its line of the output, in order."""
        # The model may read ahead, so what it was asked waits here for its outcome; questions
        # without an image never reach it and wait with their error.
        waiting: deque[tuple[Question, VlmcError | None]] = deque()

        def requests() -> Iterator[Request]:
            for question in questions:
                if question.row.missing:
                    waiting.append((question, _no_image(question.row)))
                else:
                    waiting.append((question, None))
                    yield question.row.image, question.prompt.text

        def without_image() -> Iterator[tuple[Question, dict[str, Any]]]:
            while waiting:
                question, error = waiting[0]
                if error is None:
                    return
                waiting.popleft()
                yield question, self._line(question, error)

        with closing(self._outcomes(requests())) as outcomes:
            for outcome in outcomes:
                yield from without_image()
                if not waiting:
                    raise VlmcError("the model gave more answers than it was asked questions")
                question, _ = waiting.popleft()
                if isinstance(outcome, VlmcError):
                    yield question, self._line(question, outcome)
                else:
                    answer, columns = outcome
                    self.notes.add(question.row, answer.image_notes)
                    yield question, self._line(question, columns)
        yield from without_image()
        if waiting:
            raise VlmcError(
                f"the model ended with {len(waiting)} questions unanswered; the lines before "
                "are safe, run the same command to go on"
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
                    yield outcome, _answered(outcome)
        else:
            for result in self.model.try_score(requests, choices=self.choices):
                if isinstance(result, VlmcError):
                    yield result
                else:
                    yield result.answer, _scored(result)

    def _line(self, question: Question, outcome: dict[str, Any] | VlmcError) -> dict[str, Any]:
        line: dict[str, Any] = dict.fromkeys(OUTPUT_COLUMNS)
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


def _scored(result: Scored) -> dict[str, Any] | VlmcError:
    if not all(map(math.isfinite, result.scores.values())):
        return VlmcError("a choice's log-probability is not a finite number")
    return {"scores": result.scores, **_answered(result.answer)}


def _no_image(row: InputRow) -> VlmcError:
    return VlmcError(
        f"row {row.number} names no image; fill in its column image. A table of text alone has no "
        "such column"
    )
