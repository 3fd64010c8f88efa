"""Agreement, recall, precision and exact match of answers, with intervals."""

from __future__ import annotations

import math
import string
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

# Two-sided 95 % of the normal distribution.
_Z = 1.959963984540054
_PUNCTUATION = set(string.punctuation) | set("，。！？；：、“”‘’（）《》【】…—·")
_STEPS: dict[str, Callable[[str], str]] = {
    "nfkc": lambda text: unicodedata.normalize("NFKC", text),
    "casefold": str.casefold,
    "strip_punctuation": lambda text: "".join(c for c in text if c not in _PUNCTUATION),
}
NORMALIZE = tuple(_STEPS)
"""The recipe's default of `accuracy.normalize`: all of it."""


@dataclass(frozen=True, slots=True)
class LabelledAnswer:
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


@dataclass(frozen=True, slots=True)
class PairedDrop:
    """How far a share of the same `n` questions fell: `lost` were right before and are wrong now,
    `gained` the other way round."""

    lost: int
    gained: int
    n: int

    @property
    def value(self) -> float:
        """The drop of the share, negative where it rose, NaN of nothing."""
        return (self.lost - self.gained) / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Adjusted Wald interval of paired proportions (Bonett and Price 2012), whose one question
        more on either side keeps it open where nothing was lost or gained."""
        if self.n == 0:
            return -1.0, 1.0
        n = self.n + 2
        lost, gained = (self.lost + 1) / n, (self.gained + 1) / n
        drop = lost - gained
        spread = _Z * math.sqrt((lost + gained - drop**2) / n)
        return max(-1.0, drop - spread), min(1.0, drop + spread)

    @property
    def p_value(self) -> float:
        """McNemar's exact test, two-sided: how likely so uneven a split of the changed answers is
        if losses and gains are equally likely; 1 where nothing changed."""
        changed, fewer = self.lost + self.gained, min(self.lost, self.gained)
        tail = sum(math.comb(changed, count) for count in range(fewer + 1))
        # Of integers, since 2.0 ** changed overflows from 1,024 changes on.
        return min(1.0, float(2 * tail / 2**changed))


def normalize(text: str, steps: Sequence[str] = NORMALIZE) -> str:
    """The text after `steps`, of `NORMALIZE`, in their order; outer spaces always go."""
    for step in steps:
        text = _STEPS[step](text)
    return text.strip()


def score(judged: Iterable[LabelledAnswer], steps: Sequence[str] = NORMALIZE) -> Scores:
    """Scores over all given answers, compared after `normalize`."""
    exact = total = found = true = claimed = 0
    for item in judged:
        answer = normalize(item.answer, steps)
        total += 1
        exact += normalize(item.label, steps) == answer
        true += is_positive(item, steps)
        found += is_found(item, steps)
        claimed += answer in _positive(item, steps)
    return Scores(Share(exact, total), Share(found, true), Share(found, claimed))


def is_positive(item: LabelledAnswer, steps: Sequence[str] = NORMALIZE) -> bool:
    """Whether there is something to find: the label is one of the positive ones."""
    return normalize(item.label, steps) in _positive(item, steps)


def is_found(item: LabelledAnswer, steps: Sequence[str] = NORMALIZE) -> bool:
    """Whether it was there and was found, in whichever of the positive words."""
    return is_positive(item, steps) and normalize(item.answer, steps) in _positive(item, steps)


def score_by_question(
    judged: Sequence[LabelledAnswer], steps: Sequence[str] = NORMALIZE
) -> dict[str, Scores]:
    """Scores of each question id, sorted by id."""
    questions = sorted({item.question for item in judged})
    return {
        question: score((item for item in judged if item.question == question), steps)
        for question in questions
    }


def recall_drop(
    before: Sequence[LabelledAnswer],
    after: Sequence[LabelledAnswer],
    steps: Sequence[str] = NORMALIZE,
) -> PairedDrop:
    """The drop of recall from `before` to `after`, which answer the same questions."""
    n = sum(is_positive(old, steps) for old in before)
    return _paired(before, after, lambda item: is_found(item, steps), n)


def match_drop(
    before: Sequence[LabelledAnswer],
    after: Sequence[LabelledAnswer],
    steps: Sequence[str] = NORMALIZE,
) -> PairedDrop:
    """The drop of exact match with the label from `before` to `after`."""

    def matches(item: LabelledAnswer) -> bool:
        return normalize(item.answer, steps) == normalize(item.label, steps)

    return _paired(before, after, matches, len(before))


def _paired(
    before: Sequence[LabelledAnswer],
    after: Sequence[LabelledAnswer],
    holds: Callable[[LabelledAnswer], bool],
    n: int,
) -> PairedDrop:
    lost = gained = 0
    for old, new in zip(before, after, strict=True):
        was, now = holds(old), holds(new)
        lost += was and not now
        gained += now and not was
    return PairedDrop(lost, gained, n)


def _positive(item: LabelledAnswer, steps: Sequence[str]) -> set[str]:
    return {normalize(text, steps) for text in item.positive}
