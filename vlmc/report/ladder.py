"""What each step from the source model to the artifact changes, as a table and pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vlmc.report import html
from vlmc.report.columns import draw_columns
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
    """Parts of a page: the rungs in their order, numbered, and a picture of each figure."""
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
    numbers = [str(number) for number in range(1, len(rungs) + 1)]
    recalls, agreements = [rung.recall for rung in rungs], [rung.agreement for rung in rungs]
    rates = [rung.qpm for rung in rungs]
    yield html.row(
        [
            _columns("recall", recalls, numbers, BLUE, whole=True),
            _columns("agreement with the source", agreements, numbers, GREEN, whole=True),
            _columns("questions a minute", rates, numbers, VIOLET, whole=False),
        ]
    )


def share_text(value: float | None) -> str:
    """A share in four digits."""
    return "-" if value is None else f"{value:.4f}"


def rate_text(value: float | None) -> str:
    """A rate, with more digits where it is small."""
    return "-" if value is None else f"{value:,.{0 if value >= 100 else 1}f}"


def _columns(
    title: str, values: Sequence[float | None], numbers: Sequence[str], colour: str, *, whole: bool
) -> str:
    texts = [
        ("" if value is None else f"{value:.3f}") if whole else rate_text(value) for value in values
    ]
    heights = [value or 0.0 for value in values]
    return draw_columns(title, heights, texts, numbers, colour, highest=1.0 if whole else None)
