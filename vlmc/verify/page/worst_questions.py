"""Questions of a report in the order in which a reader should look at them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class QuestionResult:
    """One question id with its values of the report, and the thresholds that its own point
    estimates cross; the gate judges all questions together."""

    name: str
    values: Mapping[str, Any]
    crossed: tuple[str, ...]

    @property
    def drop(self) -> float | None:
        """Of recall; None where the question has no positive label."""
        value: float | None = self.values.get("recall_drop", {}).get("value")
        return value


def worst_first(
    questions: Mapping[str, Mapping[str, Any]], min_agreement: float, max_recall_drop: float
) -> list[QuestionResult]:
    """Questions that cross a threshold, then by the drop of recall, then by agreement."""
    results = []
    for name, values in questions.items():
        crossed = []
        drop = values.get("recall_drop", {}).get("value")
        if drop is not None and drop > max_recall_drop:
            crossed.append("recall")
        if values["agreement"]["value"] < min_agreement:
            crossed.append("agreement")
        results.append(QuestionResult(name, values, tuple(crossed)))
    return sorted(
        results,
        key=lambda one: (
            not one.crossed,
            -(one.drop or 0.0),
            one.values["agreement"]["value"],
            one.name,
        ),
    )
