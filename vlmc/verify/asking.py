"""The answers of a model to a dataset's questions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from vlmc.errors import NotFiniteError, VlmcError
from vlmc.progress.channel import report
from vlmc.progress.events import Progress
from vlmc.runtime.model import Model
from vlmc.runtime.requests.answer import Answer
from vlmc.verify.dataset import Dataset
from vlmc.verify.source import MAX_NEW_TOKENS

NO_ANSWER = "(scores are NaN or infinite)"
"""Stands for the answer of a model whose scores are not finite; it agrees with no other."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Answers in the dataset's order, None where scores were not finite, and the time of all."""

    answers: Sequence[Answer | None]
    seconds: float

    @property
    def texts(self) -> list[str]:
        """The answers' texts, `NO_ANSWER` where there is none."""
        return [NO_ANSWER if answer is None else answer.text for answer in self.answers]


def finite(answer: Answer | VlmcError) -> Answer | None:
    """The answer, or None where its scores are not finite.

    Raises:
        VlmcError: the image or the prompt is not usable.
    """
    if isinstance(answer, NotFiniteError):
        return None
    if isinstance(answer, VlmcError):
        raise answer
    return answer


def ask(model: Model, dataset: Dataset, what: str) -> Asked:
    """Ask all questions; `what` names the answers in the progress.

    Raises:
        VlmcError: an image or a prompt is not usable.
    """
    questions, found = dataset.questions, list[Answer | None]()
    start = time.perf_counter()
    requests = (question.request for question in questions)
    with closing(model.try_stream(requests, max_new_tokens=MAX_NEW_TOKENS)) as answers:
        for answer in answers:
            found.append(finite(answer))
            report(Progress(what, len(found), len(questions)))
    return Asked(found, time.perf_counter() - start)
