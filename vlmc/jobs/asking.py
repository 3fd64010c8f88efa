"""Questions through the model, each with its line of the output."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol

from vlmc.errors import VlmcError
from vlmc.jobs.questions import Question
from vlmc.jobs.rows import ImageInput, InputRow

Request = tuple[ImageInput, str]
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


class Answer(Protocol):
    """What a job reads of the runtime's answer."""

    @property
    def text(self) -> str: ...

    @property
    def image_tokens(self) -> int: ...


class Model(Protocol):
    """What a job needs of a loaded artifact.

    Outcomes come in the order of the requests; an error that belongs to one request comes in
    its place, an error that is raised ends the job.
    """

    def stream(
        self, requests: Iterable[Request], *, max_new_tokens: int = 5
    ) -> Iterator[Answer | VlmcError]: ...

    def score_stream(
        self, requests: Iterable[Request], *, choices: Sequence[str]
    ) -> Iterator[tuple[dict[str, float], Answer] | VlmcError]: ...


Outcome = Answer | tuple[dict[str, float], Answer] | VlmcError


@dataclass(frozen=True, slots=True)
class Asking:
    """How questions are put: answered in up to `max_new_tokens`, or scored over `choices`.

    `other_columns` says whether a line also holds the input's other columns.
    """

    model: Model
    choices: Sequence[str] | None
    max_new_tokens: int
    other_columns: bool

    def lines(
        self, questions: Iterable[Question]
    ) -> Generator[tuple[Question, dict[str, Any]], None, None]:
        """Each question with its line of the output, in order."""
        # The model may read ahead, so what it was asked waits here for its outcome; questions
        # without an image never reach it and wait with their error.
        waiting: deque[tuple[Question, VlmcError | None]] = deque()

        def requests() -> Iterator[Request]:
            for question in questions:
                if question.row.image is None:
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
                yield question, self._line(question, outcome)
        yield from without_image()
        if waiting:
            raise VlmcError(
                f"the model ended with {len(waiting)} questions unanswered; the lines before "
                "are safe, run the same command to go on"
            )

    def _outcomes(self, requests: Iterator[Request]) -> Generator[Outcome, None, None]:
        if self.choices is None:
            yield from self.model.stream(requests, max_new_tokens=self.max_new_tokens)
        else:
            yield from self.model.score_stream(requests, choices=self.choices)

    def _line(self, question: Question, outcome: Outcome) -> dict[str, Any]:
        line: dict[str, Any] = dict.fromkeys(OUTPUT_COLUMNS)
        line["row"] = question.row.number
        line["image"] = question.row.name
        line["question"] = question.prompt.question
        line["prompt"] = question.prompt.text
        if isinstance(outcome, tuple) and not all(map(math.isfinite, outcome[0].values())):
            outcome = VlmcError("a choice's log-probability is not a finite number")
        if isinstance(outcome, VlmcError):
            line["error"] = str(outcome)
        elif isinstance(outcome, tuple):
            scores, answer = outcome
            line["answer"] = max(scores, key=scores.__getitem__)
            line["scores"] = scores
            line["image_tokens"] = answer.image_tokens
        else:
            line["answer"] = outcome.text
            line["image_tokens"] = outcome.image_tokens
        if self.other_columns:
            line.update(question.row.columns)
        return line


def _no_image(row: InputRow) -> VlmcError:
    return VlmcError(f"row {row.number} names no image; fill in its column image")
