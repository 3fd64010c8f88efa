"""Recall, precision and exact match of answers, with intervals."""

from __future__ import annotations

import math
import string
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Two-sided 95 % of the normal distribution.
_Z = 1.959963984540054
_PUNCTUATION = set(string.punctuation) | set("，。！？；：、“”‘’（）《》【】…—·")


@dataclass(frozen=True, slots=True)
class Judged:
    """One question with its true label and the answer given; `positive` are the labels that
    count as a find, empty where the question has none."""

    question: str
    label: str
    answer: str
    positive: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Share:
    """`hits` of `n`, with the 95 % Wilson interval."""

    hits: int
    n: int

    @property
    def value(self) -> float:
        """The share, NaN of nothing."""
        return self.hits / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson score interval (Wilson 1927), which holds near 0 and 1 too."""
        if self.n == 0:
            return 0.0, 1.0
        share, n = self.value, self.n
        centre = share + _Z**2 / (2 * n)
        spread = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
        scale = 1 + _Z**2 / n
        return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


@dataclass(frozen=True, slots=True)
class Scores:
    """Exact match of all answers; recall and precision of those that count as a find."""

    exact: Share
    recall: Share
    precision: Share

    @property
    def f1(self) -> float:
        """Harmonic mean of recall and precision, NaN where nothing is or was found."""
        recall, precision = self.recall.value, self.precision.value
        return 2 * recall * precision / (recall + precision) if recall + precision > 0 else math.nan


def normalize(text: str) -> str:
    """NFKC, casefolded, without punctuation and outer spaces."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(letter for letter in folded if letter not in _PUNCTUATION).strip()


def score(judged: Iterable[Judged]) -> Scores:
    """Scores over all given answers, compared after `normalize`."""
    exact = total = found = true = claimed = 0
    for item in judged:
        label, answer = normalize(item.label), normalize(item.answer)
        total += 1
        exact += label == answer
        positive = {normalize(text) for text in item.positive}
        found += label in positive and answer in positive
        true += label in positive
        claimed += answer in positive
    return Scores(Share(exact, total), Share(found, true), Share(found, claimed))


def score_by_question(judged: Sequence[Judged]) -> dict[str, Scores]:
    """Scores of each question id, sorted by id."""
    questions = sorted({item.question for item in judged})
    return {
        question: score(item for item in judged if item.question == question)
        for question in questions
    }
