"""A part of a job on its way to a worker, and what comes back."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vlmc.image.decode import ImageNote
from vlmc.jobs.audit import AuditResult
from vlmc.jobs.input.questions import Question, Questions
from vlmc.jobs.output.parts import RowRange

RowNotes = tuple[int, tuple[frozenset[ImageNote], ...]]
"""A row's number, and for each of its images what decoding left unused."""


@dataclass(frozen=True, slots=True)
class Part:
    """Questions whose lines are written together; of a part that is there, if it `replaces` those
    lines. `first_line` is the number of the part's first line."""

    rows: RowRange
    questions: tuple[Question, ...]
    first_line: int
    replaces: bool = False


@dataclass(frozen=True, slots=True)
class PartDone:
    """`lines` lines were written, those of `failures` with an error.

    `rows` is what the part holds: fewer rows than it should where the job was stopped.
    `lacked_cores` says whether the worker has prepared images itself since its last part.
    """

    rows: RowRange | None
    lines: int
    failures: Mapping[int, dict[str, Any]]
    notes: tuple[RowNotes, ...]
    audit: AuditResult | None
    lacked_cores: bool


def cut_parts(
    questions: Iterable[Question], ranges: Iterable[RowRange], part_rows: int
) -> Iterator[Part]:
    """The questions of the rows in `ranges`, which are in order, as parts.

    Parts end at multiples of `part_rows`, so that every run of a job cuts alike.
    """
    borders = iter(ranges)
    current = next(borders, None)
    rows: list[tuple[Question, ...]] = []

    def part() -> Part:
        first, last = rows[0][0], rows[-1][0]
        span = RowRange(first.row.number, last.row.number)
        return Part(span, tuple(itertools.chain(*rows)), first.line)

    for number, group in itertools.groupby(questions, lambda question: question.row.number):
        while current is not None and number > current.last:
            if rows:
                yield part()
                rows = []
            current = next(borders, None)
        if current is None:
            break
        if number < current.first:
            continue
        if rows and number % part_rows == 0:
            yield part()
            rows = []
        rows.append(tuple(group))
    if rows:
        yield part()


def failed_parts(
    questions: Questions, parts: Iterable[RowRange], failed: Collection[int]
) -> Iterator[Part]:
    """The questions on lines that `failed`, by the part that holds them; `parts` are in order."""
    again = (question for question in questions.read() if question.line in failed)
    question = next(again, None)
    for rows in parts:
        inside = []
        while question is not None and question.row.number <= rows.last:
            inside.append(question)
            question = next(again, None)
        if inside:
            first = questions.lines_of(rows.first).start
            yield Part(rows, tuple(inside), first, replaces=True)
