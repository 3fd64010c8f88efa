"""The lines of an output on tables and image files."""

from __future__ import annotations

import math
from typing import Any

from vlmc.errors import VlmcError
from vlmc.files.units import shorten
from vlmc.jobs.input.questions import Question
from vlmc.jobs.output.columns import output_columns
from vlmc.runtime.requests.answer import Answer
from vlmc.runtime.requests.scores import Scored, ScoreMeasure

MAX_ERROR_CHARACTERS = 1000


class TableLines:
    """Makes a line of a question and its outcome.

    `other_columns` says whether a line also holds the input's other columns, `confidence` whether
    it holds the probabilities of a generated answer's tokens, `measure` what `scores` holds.
    """

    def __init__(self, other_columns: bool, confidence: bool, measure: ScoreMeasure) -> None:
        self.columns = output_columns(confidence)
        self._other_columns, self._confidence, self._measure = other_columns, confidence, measure

    def line(self, question: Question, outcome: Answer | Scored | VlmcError) -> dict[str, Any]:
        """The line, with an answer or with its error."""
        line: dict[str, Any] = dict.fromkeys(self.columns)
        line["row"] = question.row.number
        line["image"] = question.row.name
        line["question"] = question.prompt.question
        line["prompt"] = question.prompt.text
        if isinstance(outcome, VlmcError):
            line["error"] = shorten(str(outcome), MAX_ERROR_CHARACTERS)
        else:
            line.update(self._answered(outcome))
        if self._other_columns:
            line.update(question.row.columns)
        return line

    def _answered(self, outcome: Answer | Scored) -> dict[str, Any]:
        if isinstance(outcome, Scored):
            answer, values = outcome.answer, {"scores": outcome.scores.by(self._measure)}
        else:
            answer, values = outcome, self._probabilities(outcome)
        return {"answer": answer.text, "image_tokens": answer.image_tokens, **values}

    def _probabilities(self, answer: Answer) -> dict[str, Any]:
        """Mean and least probability of the answer's tokens, the stop token included."""
        found = [math.exp(logprob) for logprob in answer.token_logprobs]
        if not self._confidence or not found:
            return {}
        return {
            "mean_probability": math.fsum(found) / len(found),
            "least_probability": min(found),
        }
