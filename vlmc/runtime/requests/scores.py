"""Scores of given choices, and what they can be compared by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from vlmc.errors import UsageError
from vlmc.runtime.requests.answer import Answer

ScoreMeasure: TypeAlias = Literal["logprob", "mean", "probability"]
MEASURES: tuple[ScoreMeasure, ...] = get_args(ScoreMeasure)


class Scores(dict[str, float]):
    """Choice → log-probability: the sum over the choice's scored tokens, each given those before.

    `tokens` has the number of scored tokens of each choice. It counts the end of the answer where
    that is scored too.

    >>> from vlmc import Scores
    >>> scores = Scores({"no": -3.0, "not at all": -4.0}, tokens={"no": 1, "not at all": 4})
    >>> scores.means
    {'no': -3.0, 'not at all': -1.0}
    >>> scores.best(), scores.best("mean"), round(scores.probabilities["no"], 3)
    ('no', 'not at all', 0.731)
    """

    def __init__(self, logprobs: Mapping[str, float], tokens: Mapping[str, int]) -> None:
        super().__init__(logprobs)
        self.tokens = dict(tokens)

    @property
    def means(self) -> dict[str, float]:
        """Choice → log-probability divided by the number of scored tokens."""
        return {choice: value / self.tokens[choice] for choice, value in self.items()}

    @property
    def probabilities(self) -> dict[str, float]:
        """Choice → its share of the probability of all choices: softmax of the log-probabilities.

        It is NaN if a log-probability is.
        """
        highest = max(self.values())
        weights = {choice: math.exp(value - highest) for choice, value in self.items()}
        total = math.fsum(weights.values())
        return {choice: weight / total for choice, weight in weights.items()}

    def by(self, measure: ScoreMeasure) -> dict[str, float]:
        """Choice → value of a measure."""
        if measure == "mean":
            return self.means
        return self.probabilities if measure == "probability" else dict(self)

    def best(self, measure: ScoreMeasure = "logprob") -> str:
        """The choice of the highest value; of equal ones the first.

        `logprob` and `probability` always agree. `mean` may choose another, because it does not
        favour choices of few tokens.
        """
        values = self.by("logprob" if measure == "probability" else measure)
        return max(values, key=values.__getitem__)


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of the given choices, and the best of them as an answer."""

    scores: Scores
    answer: Answer


@dataclass(frozen=True, slots=True)
class Choose:
    """Take the best of given choices, by a measure of their scores."""

    choices: tuple[str, ...]
    measure: ScoreMeasure = "logprob"


def make_choose(choices: Sequence[str], measure: ScoreMeasure = "logprob") -> Choose:
    """The choices, checked.

    Raises:
        UsageError: they are not different texts, at least one, or there is no such measure.
    """
    texts = not isinstance(choices, str) and all(isinstance(text, str) for text in choices)
    if not texts or not choices or len(set(choices)) != len(choices):
        raise UsageError(f"choices must be different texts, at least one; got {choices!r:.200}")
    if measure not in MEASURES:
        raise UsageError(f"the measure is {measure!r:.100}; it must be {' or '.join(MEASURES)}")
    return Choose(tuple(choices), measure)
