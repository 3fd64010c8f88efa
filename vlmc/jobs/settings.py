"""How a job answers its questions, and the ledger and lines that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vlmc.jobs.input.prompts import Prompt
from vlmc.jobs.input.rows import Rows
from vlmc.jobs.ledger import Ledger
from vlmc.jobs.output.openai_lines import BatchLines, TokenModel
from vlmc.jobs.output.table_lines import TableLines
from vlmc.runtime.requests.scores import ScoreMeasure


@dataclass(frozen=True, slots=True)
class JobSettings:
    """The choices of all questions that have none of their own, or None for generated answers of
    up to `max_new_tokens`; see `run_job`."""

    choices: tuple[str, ...] | None = None
    max_new_tokens: int = 5
    confidence: bool = False
    measure: ScoreMeasure = "logprob"

    def ledger(
        self,
        rows: Rows,
        prompts: Sequence[Prompt],
        *,
        artifact: str,
        tiles: str,
        thresholds: str | None,
        part_rows: int | None = None,
    ) -> Ledger:
        """What an output of these settings is bound to."""
        return Ledger(
            artifact=artifact,
            tiles=tiles,
            input=rows.identity,
            prompts=None if rows.prompted else [_identity(prompt) for prompt in prompts],
            choices=list(self.choices) if self.choices else None,
            max_new_tokens=None if self.choices else self.max_new_tokens,
            confidence=self.confidence,
            score=self.measure
            if self.choices or any(prompt.choices for prompt in prompts)
            else None,
            thresholds=thresholds,
            part_rows=part_rows,
        )

    def form(
        self, model: TokenModel, is_batch: bool, other_columns: bool
    ) -> TableLines | BatchLines:
        """Makes the lines, those of an OpenAI batch if `is_batch`; `other_columns` says whether
        lines of a table hold the input's other columns."""
        if is_batch:
            return BatchLines(model)
        return TableLines(other_columns, self.confidence, self.measure)


def _identity(prompt: Prompt) -> list[Any]:
    """A question in the ledger; without its own choices as before there were such."""
    return [prompt.question, prompt.text, *([list(prompt.choices)] if prompt.choices else [])]
