"""Answers of a job, decided by the thresholds of `vlmc verify accuracy --min-recall`."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Protocol

from vlmc.errors import UsageError
from vlmc.files.units import shorten
from vlmc.jobs.audit import ReferenceModel
from vlmc.jobs.input.openai_batch import BatchRows
from vlmc.jobs.input.prompts import Prompt
from vlmc.jobs.input.rows import Rows
from vlmc.jobs.job import JobModel
from vlmc.jobs.question_runner import Outcome
from vlmc.runtime.requests.answer import Answer
from vlmc.runtime.requests.request import Request
from vlmc.runtime.requests.scores import Choose, Scored, ScoreMeasure
from vlmc.runtime.requests.thresholds import Threshold, Thresholds
from vlmc.runtime.scheduler.sequence import Sampling


def check_input(rows: Rows) -> None:
    """Raise `UsageError` for an input whose answers cannot be choices."""
    if isinstance(rows, BatchRows):
        raise UsageError(
            f"{rows.source}: is an OpenAI batch, whose answers are generated; write the rows "
            "as a table of image and prompt to decide them by thresholds"
        )


def with_choices(prompts: Sequence[Prompt], thresholds: Thresholds) -> list[Prompt]:
    """The prompts with the choices that their thresholds are for.

    Raises:
        UsageError: a prompt has no threshold, or other choices; names it.
    """
    found = []
    for prompt in prompts:
        threshold = thresholds.of(prompt.text)
        if threshold is None:
            raise thresholds.missing(prompt.text, prompt.question)
        if prompt.choices not in (None, threshold.choices):
            raise UsageError(
                f"the question {shorten(prompt.question)!r} has the choices "
                f"{', '.join(prompt.choices or ())}, its threshold in {thresholds.path} is for "
                f"{', '.join(threshold.choices)}; leave its choices out"
            )
        found.append(replace(prompt, choices=threshold.choices))
    return found


class _Model(JobModel, ReferenceModel, Protocol):
    """A model of jobs that can be audited."""


class ThresholdModel:
    """A model whose answers are decided by thresholds, whatever work it is given.

    A prompt without a threshold gets an error in its place.
    """

    def __init__(self, model: _Model, thresholds: Thresholds, measure: ScoreMeasure) -> None:
        self._model, self._thresholds, self._measure = model, thresholds, measure

    def try_each(
        self, requests: Iterable[tuple[Request, Sampling | Choose]]
    ) -> Generator[Outcome, None, None]:
        """See `Model.try_each`."""
        waiting: deque[Threshold | UsageError] = deque()

        def scored() -> Iterator[tuple[Request, Choose]]:
            for request, _ in requests:
                threshold = self._of(request)
                waiting.append(threshold)
                if isinstance(threshold, Threshold):
                    yield request, Choose(threshold.choices, self._measure)

        def refused() -> Iterator[UsageError]:
            while waiting and isinstance(waiting[0], UsageError):
                error = waiting.popleft()
                if isinstance(error, UsageError):
                    yield error

        with closing(self._model.try_each(scored())) as outcomes:
            for outcome in outcomes:
                yield from refused()
                threshold = waiting.popleft()
                if isinstance(outcome, Scored) and isinstance(threshold, Threshold):
                    outcome = threshold.decide(outcome)
                yield outcome
            yield from refused()

    def reference_answer(self, request: Request, work: Sampling | Choose) -> Answer | Scored:
        """See `Model.reference_answer`."""
        threshold = self._of(request)
        if isinstance(threshold, UsageError):
            raise threshold
        choose = Choose(threshold.choices, self._measure)
        found = self._model.reference_answer(request, choose)
        return threshold.decide(found) if isinstance(found, Scored) else found

    def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        """See `Model.token_texts`."""
        return self._model.token_texts(token_ids)

    def _of(self, request: Request) -> Threshold | UsageError:
        prompt = str(request[1])
        return self._thresholds.of(prompt) or self._thresholds.missing(prompt)
