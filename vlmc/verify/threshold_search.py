"""The search for a score threshold that reaches a recall."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from vlmc.runtime.requests.thresholds import Threshold
from vlmc.verify.answers import share_json
from vlmc.verify.dataset import Question
from vlmc.verify.metrics import Share

SEED = 0
"""Decides which images are in which half."""
UNLIKELY = 0.01
"""So rarely more finds are missed by chance alone than where a threshold is refused."""


class TooFewError(Exception):
    """A question has too few positive labels for a threshold."""


@dataclass(frozen=True, slots=True)
class Item:
    """A question with its score, and whether there is something to find and whether the best
    choice finds it."""

    score: float
    is_positive: bool
    best_is_positive: bool
    checked: bool  # in the half that thresholds are checked on


@dataclass(frozen=True, slots=True)
class Found:
    """A threshold, and what it does on the half where it was checked, beside the best choice."""

    threshold: Threshold
    recall: Share
    precision: Share
    best_recall: Share
    best_precision: Share
    chance: float  # of as many misses or more, if the images of both halves are alike

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        one = self.threshold
        return {
            "question": one.question,
            "prompts": list(one.prompts),
            "choices": list(one.choices),
            "positive": list(one.positive),
            "threshold": one.threshold,
            "checked": {
                "recall": share_json(self.recall),
                "precision": share_json(self.precision),
                "best_choice_recall": share_json(self.best_recall),
                "best_choice_precision": share_json(self.best_precision),
                "chance": round(self.chance, 6),
            },
        }

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"{self.threshold.question}: threshold {self.threshold.threshold:.4g}"
        for name, recall, precision in (
            ("by threshold", self.recall, self.precision),
            ("best choice", self.best_recall, self.best_precision),
        ):
            yield f"  {name}: recall {share_text(recall)}, precision {share_text(precision)}"


def least_positives(min_recall: float) -> int:
    """Positive labels that each half needs.

    Of n scores of positives a new one is below the lowest with probability 1 / (n + 1), so this
    many are needed before even the lowest reaches the recall.
    """
    return max(1, math.ceil(1 / (1 - min_recall) - 1e-9) - 1)


def halves(questions: Sequence[Question]) -> dict[str, bool]:
    """Whether each image, by its digest, is in the half that thresholds are checked on.

    Images of one question are in the same half.
    """
    first: dict[str, str] = {}

    def root(digest: str) -> str:
        while (above := first.setdefault(digest, digest)) != digest:
            digest = above
        return digest

    for question in questions:
        for digest in question.digests[1:]:
            one, other = sorted((root(question.digests[0]), root(digest)))
            first[other] = one
        root(question.digests[0])
    return {
        digest: bool(hashlib.sha256(f"{SEED} {root(digest)}".encode()).digest()[0] & 1)
        for digest in [*first]
    }


def search(items: Sequence[Item], min_recall: float) -> float:
    """The highest threshold whose recall on new images is expected to be `min_recall`.

    It is found on the items that are not `checked`: of n positives, the k-th lowest score leaves
    k / (n + 1) of new ones below it. The threshold is halfway to the next lower score of any item.

    Raises:
        TooFewError: one half has too few positives.
    """
    needed = least_positives(min_recall)
    counts = [sum(i.is_positive for i in items if i.checked is side) for side in (False, True)]
    if min(counts) < needed:
        raise TooFewError(
            f"its halves have {counts[0]} and {counts[1]} positive labels, and a recall of "
            f"{min_recall:g} needs {needed} in each; label about "
            f"{2 * (needed - min(counts))} more images with something to find"
        )
    known = [item for item in items if not item.checked]
    positives = sorted(item.score for item in known if item.is_positive)
    at = positives[_rank(len(positives), min_recall) - 1]
    below = max((item.score for item in known if item.score < at), default=0.0)
    return (at + below) / 2


def check(threshold: Threshold, items: Sequence[Item], min_recall: float) -> Found:
    """What the threshold that `search` found does on the items that are `checked`."""
    held = [item for item in items if item.checked]
    by_threshold = _shares(held, [item.score >= threshold.threshold for item in held])
    by_best = _shares(held, [item.best_is_positive for item in held])
    positives = sum(item.is_positive and not item.checked for item in items)
    recall, _ = by_threshold
    chance = _chance(_rank(positives, min_recall), positives, recall.n - recall.hits, recall.n)
    return Found(threshold, *by_threshold, *by_best, chance)


def _rank(positives: int, min_recall: float) -> int:
    return math.floor((1 - min_recall) * (positives + 1) + 1e-9)


def _chance(rank: int, known: int, missed: int, new: int) -> float:
    """How likely `missed` or more of `new` scores are below the one of this rank of `known` scores
    from the same distribution, whatever that is: the negative hypergeometric distribution."""
    fewer = sum(
        math.comb(rank - 1 + count, count) * math.comb(known - rank + new - count, new - count)
        for count in range(missed)
    )
    return float(1 - fewer / math.comb(known + new, new))


def _shares(items: Sequence[Item], claimed: Sequence[bool]) -> tuple[Share, Share]:
    """Recall and precision."""
    hits = sum(item.is_positive and claim for item, claim in zip(items, claimed, strict=True))
    return Share(hits, sum(item.is_positive for item in items)), Share(hits, sum(claimed))


def share_text(share: Share) -> str:
    """`0.9912 [0.9680, 0.9976] n 227`."""
    low, high = share.interval
    return f"{share.value:.4f} [{low:.4f}, {high:.4f}] n {share.n}" if share.n else "-"
