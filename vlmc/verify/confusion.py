"""Which answers are given in place of which, question by question."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from vlmc.verify.answers import Pair
from vlmc.verify.metrics import normalize

LABELS = 8
"""Texts with a row and a column of their own; all others have the last ones together."""


def confusion(
    pairs: Iterable[Pair], steps: Sequence[str], names: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """Matrices of the question ids `names`, of normalized texts, in their JSON form.

    `labels` are the most frequent texts of labels and answers, then None for all others if there
    are such. `label_reference` and `label_artifact` count answers (columns) by true label (rows),
    of the pairs that have one; `reference_artifact` counts the artifact's answers by the source's.
    """
    by_question: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        by_question[pair.question.question].append(pair)
    return {name: _matrices(by_question[name], steps) for name in names}


def _matrices(pairs: Sequence[Pair], steps: Sequence[str]) -> dict[str, Any]:
    found = [
        (
            None if pair.question.label is None else normalize(pair.question.label, steps),
            normalize(pair.reference.text, steps),
            normalize(pair.answer, steps),
        )
        for pair in pairs
    ]
    frequent = Counter(text for texts in found for text in texts if text is not None)
    # Equally frequent ones by text, so that the same run writes the same report.
    order = sorted(frequent, key=lambda text: (-frequent[text], text))
    labels: list[str | None] = [*order[:LABELS], *([None] if order[LABELS:] else [])]
    place = {text: min(index, LABELS) for index, text in enumerate(order)}

    def count(rows: int, columns: int) -> list[list[int]]:
        counts = [[0] * len(labels) for _ in labels]
        for texts in found:
            row, column = texts[rows], texts[columns]
            if row is not None and column is not None:
                counts[place[row]][place[column]] += 1
        return counts

    values: dict[str, Any] = {"labels": labels}
    if any(label is not None for label, _, _ in found):
        values |= {"label_reference": count(0, 1), "label_artifact": count(0, 2)}
    return values | {"reference_artifact": count(1, 2)}
