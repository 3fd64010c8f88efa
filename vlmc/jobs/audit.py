"""A sample of a job's answers, checked by the runtime's plain reference path."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from vlmc.errors import VlmcError
from vlmc.files.units import shorten
from vlmc.jobs.input.questions import Question
from vlmc.runtime.requests.answer import Answer
from vlmc.runtime.requests.request import Request
from vlmc.runtime.requests.scores import Choose, Scored
from vlmc.runtime.scheduler.sequence import Sampling

MAX_DISAGREEMENTS = 20


class ReferenceModel(Protocol):
    """A model that can answer by the plain path."""

    def reference_answer(self, request: Request, work: Sampling | Choose) -> Answer | Scored: ...


@dataclass(frozen=True, slots=True)
class AuditResult:
    """`agreed` of `checked` answers are the same to the letter; some of the others are listed.

    `failed` were not checked, because the reference path needs more memory than is free.
    """

    checked: int
    agreed: int
    failed: int
    disagreements: tuple[Mapping[str, Any], ...]

    def plus(self, other: AuditResult) -> AuditResult:
        """Both together."""
        listed = (*self.disagreements, *other.disagreements)
        return AuditResult(
            self.checked + other.checked,
            self.agreed + other.agreed,
            self.failed + other.failed,
            listed[:MAX_DISAGREEMENTS],
        )


class Audit:
    """Answers a share of the questions again. Which ones follows from their line numbers.

    `result` is what was found so far.
    """

    def __init__(self, model: ReferenceModel, share: float) -> None:
        self._model, self._share = model, share
        self.result = AuditResult(0, 0, 0, ())

    def check(self, question: Question, work: Sampling | Choose, text: str) -> None:
        """Compare the answer `text`, if the question is in the sample.

        Answers that were drawn at a temperature are left out: they have no one right answer.
        """
        if not self._is_sampled(question.line):
            return
        if isinstance(work, Sampling) and work.temperature > 0:
            return
        try:
            found = self._model.reference_answer((question.row.image, question.prompt.text), work)
            reference = found.answer.text if isinstance(found, Scored) else found.text
        except VlmcError as error:
            reference = f"error: {error}"
        except (MemoryError, RuntimeError) as error:
            # torch raises a RuntimeError where a CPU or GPU has too little memory.
            if not isinstance(error, MemoryError) and "memory" not in str(error):
                raise
            self.result = self.result.plus(AuditResult(0, 0, 1, ()))
            return
        agreed = reference == text
        disagreement = {
            "row": question.row.number,
            "question": question.prompt.question,
            "answer": text,
            "reference": shorten(reference),
        }
        checked = AuditResult(1, int(agreed), 0, () if agreed else (disagreement,))
        self.result = self.result.plus(checked)

    def take(self) -> AuditResult:
        """What was found since the last call."""
        found, self.result = self.result, AuditResult(0, 0, 0, ())
        return found

    def _is_sampled(self, line: int) -> bool:
        digest = hashlib.blake2b(line.to_bytes(8, "big"), digest_size=8).digest()
        return int.from_bytes(digest, "big") < self._share * 2**64
