"""What each step from the source model to the artifact changes, as a table and pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vlmc.report import html
from vlmc.report.columns import draw_columns
from vlmc.report.numbers import rate_text, share_text
from vlmc.report.svg import BLUE, GREEN, VIOLET


@dataclass(frozen=True, slots=True)
class LadderRung:
    """One part of the artifact in place of the source's, on top of those before.

    `recall` and `agreement` with the source are shares from 0 to 1, `qpm` questions a minute; None
    where there is nothing to measure.
    """

    name: str
    recall: float | None
    agreement: float | None
    qpm: float | None


def draw_ladder(rungs: Sequence[LadderRung]) -> Iterator[str]:
    """Parts of a page: the rungs in their order, numbered, and a picture of each figure that was
    measured."""
    yield html.table(
        ("rung", "recall", "agreement", "questions a minute"),
        (
            (
                f"{number}. {rung.name}",
                share_text(rung.recall),
                share_text(rung.agreement),
                rate_text(rung.qpm),
            )
            for number, rung in enumerate(rungs, 1)
        ),
    )
    panels: list[tuple[str, list[float | None], str, float | None]] = [
        ("recall", [rung.recall for rung in rungs], BLUE, 1.0),
        ("agreement with the source", [rung.agreement for rung in rungs], GREEN, 1.0),
        ("questions a minute", [rung.qpm for rung in rungs], VIOLET, None),
    ]
    yield html.row(
        draw_columns(
            title,
            [value or 0.0 for value in values],
            [_column_text(value, highest) for value in values],
            [str(number) for number in range(1, len(rungs) + 1)],
            colour,
            highest=highest,
        )
        for title, values, colour, highest in panels
        if any(value is not None for value in values)
    )


def _column_text(value: float | None, highest: float | None) -> str:
    if value is None:
        return ""
    return rate_text(value) if highest is None else f"{value:.3f}"
