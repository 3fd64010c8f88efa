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


class Audit:
    """Answers a share of the questions again. Which ones follows from their line numbers."""

    def __init__(self, model: ReferenceModel, share: float) -> None:
        self._model, self._share = model, share
        self._checked = self._agreed = self._failed = 0
        self._disagreements: list[Mapping[str, Any]] = []

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
            self._failed += 1
            return
        self._checked += 1
        if reference == text:
            self._agreed += 1
        elif len(self._disagreements) < MAX_DISAGREEMENTS:
            self._disagreements.append(
                {
                    "row": question.row.number,
                    "question": question.prompt.question,
                    "answer": text,
                    "reference": shorten(reference),
                }
            )

    @property
    def result(self) -> AuditResult:
        """What was found so far."""
        return AuditResult(self._checked, self._agreed, self._failed, tuple(self._disagreements))

    def _is_sampled(self, line: int) -> bool:
        digest = hashlib.blake2b(line.to_bytes(8, "big"), digest_size=8).digest()
        return int.from_bytes(digest, "big") < self._share * 2**64
