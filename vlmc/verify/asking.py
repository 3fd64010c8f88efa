"""The answers of a model to a dataset's questions."""

from __future__ import annotations

import time
from contextlib import closing

from vlmc.errors import NotFiniteError, VlmcError
from vlmc.progress.channel import report
from vlmc.progress.events import Progress
from vlmc.runtime.model import Model
from vlmc.runtime.requests.answer import Answer
from vlmc.verify.dataset import Dataset
from vlmc.verify.source import MAX_NEW_TOKENS

NO_ANSWER = "(scores are NaN or infinite)"
"""Stands for the answer of a model whose scores are not finite; it agrees with no other."""


def answer_text(answer: Answer | VlmcError) -> str:
    """The text of an answer, or `NO_ANSWER`.

    Raises:
        VlmcError: the image or the prompt is not usable.
    """
    if isinstance(answer, NotFiniteError):
        return NO_ANSWER
    if isinstance(answer, VlmcError):
        raise answer
    return answer.text


def ask(model: Model, dataset: Dataset, what: str) -> tuple[list[str], float]:
    """The answers in order, and how many seconds they took; `what` names them in the progress.

    Raises:
        VlmcError: an image or a prompt is not usable.
    """
    questions, texts = dataset.questions, list[str]()
    start = time.perf_counter()
    requests = (question.request for question in questions)
    with closing(model.try_stream(requests, max_new_tokens=MAX_NEW_TOKENS)) as answers:
        for answer in answers:
            texts.append(answer_text(answer))
            report(Progress(what, len(texts), len(questions)))
    return texts, time.perf_counter() - start
