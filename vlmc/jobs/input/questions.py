"""Every question of a job, in the order of the output's lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlmc.jobs.input.openai_batch import BatchRows
from vlmc.jobs.input.prompts import Prompt
from vlmc.jobs.input.rows import InputRow, Rows, result_id


@dataclass(frozen=True, slots=True)
class Question:
    """The question that line `line` of the output answers."""

    line: int
    row: InputRow
    prompt: Prompt


class Questions:
    """Every question of a job in the order of the output's lines."""

    def __init__(self, rows: Rows, prompts: Sequence[Prompt]) -> None:
        self.rows = rows
        self._prompts = prompts
        self._per_row = 1 if rows.prompted else len(prompts)
        self.total = len(rows) * self._per_row

    def read(self, start: int = 0) -> Iterator[Question]:
        """The questions from line `start` on."""
        for row in self.rows.read(start // self._per_row):
            for place, prompt in enumerate(self._of(row)):
                line = row.number * self._per_row + place
                if line >= start:
                    yield Question(line, row, prompt)

    def lines_of(self, row: int) -> range:
        """The output's lines of a row."""
        return range(row * self._per_row, (row + 1) * self._per_row)

    def belongs(self, line: int, values: Mapping[str, Any]) -> bool:
        """Whether `values` can be the output's line `line`."""
        row, place = divmod(line, self._per_row)
        if isinstance(self.rows, BatchRows):
            return values.get("id") == result_id(line) and "response" in values
        if line >= self.total or values.get("row") != row:
            return False
        return self.rows.prompted or values.get("question") == self._prompts[place].question

    def _of(self, row: InputRow) -> Sequence[Prompt]:
        if row.prompt is not None and row.question is not None:
            return (Prompt(row.question, row.prompt),)
        return self._prompts
