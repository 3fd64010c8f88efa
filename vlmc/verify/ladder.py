"""The ladder from the source to the artifact: what each part changes in the answers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from vlmc.report.ladder import LadderRung
from vlmc.verify.answers import AnswerCheck, Pair
from vlmc.verify.dataset import Dataset
from vlmc.verify.metrics import score
from vlmc.verify.reference import Reference

RUNGS = (
    "source",
    "tile rule",
    "resampler",
    "vision engine",
    "language model",
    "cache and graphs",
)
"""From the source model on, each with one more part of the artifact in place of the source's."""


@dataclass(frozen=True, slots=True)
class Rung(LadderRung):
    """Answers of a model that is the artifact's up to the part that gives the name.

    `agreement` and `exact` are shares of the source's answers; `recall` is None where the dataset
    has no positive label; `qpm` counts questions a minute; `n` questions were asked.
    """

    agreement: float
    qpm: float
    exact: float
    n: int


def make_rung(
    name: str,
    texts: Sequence[str],
    seconds: float,
    dataset: Dataset,
    reference: Reference,
    steps: Sequence[str],
) -> Rung:
    """The rung of a model that gave `texts` to the dataset's questions in `seconds`."""
    pairs = tuple(
        Pair(question, reference.answers[question.key], text)
        for question, text in zip(dataset.questions, texts, strict=True)
    )
    check = AnswerCheck(pairs, tuple(steps))
    labelled = [pair.judged(pair.answer) for pair in pairs if pair.question.label is not None]
    recall = score(labelled, steps).recall.value
    return Rung(
        name=name,
        recall=None if math.isnan(recall) else round(recall, 6),
        agreement=round(check.agreement.value, 6),
        exact=round(check.exact.value, 6),
        qpm=round(60 * len(pairs) / seconds, 1),
        n=len(pairs),
    )


def steepest(rungs: Sequence[Rung]) -> Rung | None:
    """The rung at which agreement with the source falls most, None where it never falls."""
    falls = [(before.agreement - after.agreement, after) for before, after in pairwise(rungs)]
    fall, rung = max(falls, key=lambda pair: pair[0], default=(0.0, None))
    return rung if fall > 0 else None


def ladder_json(rungs: Sequence[Rung]) -> dict[str, Any] | None:
    """The JSON form, None where the ladder was not climbed."""
    if not rungs:
        return None
    fall = steepest(rungs)
    return {
        "rungs": [asdict(rung) for rung in rungs],
        "steepest": None if fall is None else fall.name,
    }


def ladder_lines(rungs: Sequence[Rung]) -> Iterator[str]:
    """The ladder for people."""
    if not rungs:
        return
    yield f"ladder      {'':18}agreement   exact  recall   questions a minute"
    for rung in rungs:
        recall = "     -" if rung.recall is None else f"{rung.recall:.4f}"
        yield (
            f"            {rung.name:18}   {rung.agreement:.4f}  {rung.exact:.4f}  {recall}"
            f"{rung.qpm:21,.1f}"
        )
    fall = steepest(rungs)
    yield (
        "            agreement falls nowhere"
        if fall is None
        else f"            agreement falls most at: {fall.name}"
    )
