"""Parts through a model, one after the other as one stream."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from vlmc.image.decode import ImageNote
from vlmc.jobs.audit import Audit, AuditResult
from vlmc.jobs.input.questions import Question
from vlmc.jobs.input.rows import InputRow
from vlmc.jobs.output.failures import line_error
from vlmc.jobs.picture_notes import PictureNotes
from vlmc.jobs.question_runner import QuestionRunner
from vlmc.jobs.ray.part import Part, RowNotes


@dataclass(slots=True)
class AnsweredPart:
    """The lines of a part that are answered, in order, each with its question.

    `ended` is done when all are there, when the job stops, or with the error that ends it.
    """

    part: Part
    lines: list[tuple[Question, dict[str, Any]]] = field(default_factory=list)
    notes: list[RowNotes] = field(default_factory=list)
    errors: int = 0
    error_rows: set[int] = field(default_factory=set)
    audit: AuditResult | None = None
    ended: Future[None] = field(default_factory=Future)

    def add(self, question: Question, line: dict[str, Any]) -> None:
        """Add the next line."""
        self.lines.append((question, line))
        if line_error(line) is not None:
            self.errors += 1
            self.error_rows.add(question.row.number)

    @property
    def is_whole(self) -> bool:
        """Whether all lines are there."""
        return len(self.lines) == len(self.part.questions)


class NotesOfParts(PictureNotes):
    """Adds the notes of pictures to the part that is answered, `parts[0]`."""

    def __init__(self, parts: deque[AnsweredPart]) -> None:
        super().__init__()
        self._parts = parts

    def add(self, row: InputRow, notes: Sequence[Collection[ImageNote]]) -> None:
        """See `PictureNotes.add`."""
        if any(notes):
            self._parts[0].notes.append((row.number, tuple(map(frozenset, notes))))


class PartStream:
    """Answers parts on a thread of its own. While one ends, the model has the questions of the
    next one already, so that it never runs dry between two."""

    def __init__(
        self,
        make_runner: Callable[[NotesOfParts], QuestionRunner],
        prepared: Callable[[Iterable[Question]], Iterator[Question]],
    ) -> None:
        """`make_runner` is given the notes of its pictures; `prepared` gives questions with
        prepared images."""
        self._waiting: queue.SimpleQueue[AnsweredPart] = queue.SimpleQueue()
        # Those that the model was given, in order.
        self._taken: deque[AnsweredPart] = deque()
        self._runner = make_runner(NotesOfParts(self._taken))
        self._prepared = prepared
        threading.Thread(target=self._serve, name="vlmc-parts", daemon=True).start()

    def put(self, part: Part) -> AnsweredPart:
        """Begin with a part as soon as the ones before are asked."""
        answered = AnsweredPart(part)
        self._waiting.put(answered)
        return answered

    def stop(self) -> None:
        """Begin no more requests; parts end with what is answered."""
        self._runner.stop.request("the job stops")

    @property
    def unfinished(self) -> list[AnsweredPart]:
        """The parts that the model was given and that have not ended."""
        return list(self._taken)

    def _serve(self) -> None:
        while True:
            self._run(self._waiting.get())

    def _run(self, first: AnsweredPart) -> None:
        """Answer a part, and those that follow without a gap."""
        try:
            with closing(self._runner.lines(self._prepared(self._questions(first)))) as lines:
                for question, line in lines:
                    current = self._taken[0]
                    current.add(question, line)
                    if current.is_whole:
                        self._end(None)
            while self._taken:  # the job stops
                self._end(None)
        except BaseException as error:
            while self._taken:
                self._end(error)

    def _questions(self, first: AnsweredPart) -> Iterator[Question]:
        following: AnsweredPart | None = first
        while following is not None:
            self._taken.append(following)
            yield from following.part.questions
            following = self._next()

    def _next(self) -> AnsweredPart | None:
        try:
            return self._waiting.get_nowait()
        except queue.Empty:
            return None

    def _end(self, error: BaseException | None) -> None:
        ended = self._taken.popleft()
        audit: Audit | None = self._runner.audit
        if audit is not None:
            ended.audit = audit.take()
        if error is None:
            ended.ended.set_result(None)
        else:
            ended.ended.set_exception(error)
