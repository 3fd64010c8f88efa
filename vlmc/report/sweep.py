"""Recall and speed against the tokens of an image, as a table and pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from vlmc.report import html, svg
from vlmc.report.numbers import rate_text, share_text
from vlmc.report.svg import BLUE, VIOLET

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 358, 220, 52, 24, 40, 36
_ROOM = 0.1


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """One setting of what is swept, such as a tile rule.

    `tokens_per_image` is the mean over the images, `recall` a share from 0 to 1, `qpm` questions a
    minute; None where there is nothing to measure.
    """

    label: str
    tokens_per_image: float
    recall: float | None
    qpm: float | None


def draw_sweep(points: Sequence[SweepPoint]) -> Iterator[str]:
    """Parts of a page: the points in their order, numbered, and what tokens cost and bring."""
    yield html.table(
        ("setting", "tokens an image", "recall", "questions a minute"),
        (
            (
                f"{number}. {point.label}",
                f"{point.tokens_per_image:,.0f}",
                share_text(point.recall),
                rate_text(point.qpm),
            )
            for number, point in enumerate(points, 1)
        ),
    )
    tokens = [point.tokens_per_image for point in points]
    recalls, rates = [point.recall for point in points], [point.qpm for point in points]
    yield html.row(
        [
            _scatter("recall by tokens an image", tokens, recalls, BLUE),
            _scatter("recall by questions a minute", rates, recalls, VIOLET),
            _scatter("questions a minute by tokens an image", tokens, rates, BLUE),
        ]
    )


def _scatter(
    title: str, xs: Sequence[float | None], ys: Sequence[float | None], colour: str
) -> str:
    """Numbered points, those joined in order of x that have both values."""
    found = [
        (x, y, number)
        for number, (x, y) in enumerate(zip(xs, ys, strict=True), 1)
        if x is not None and y is not None
    ]
    parts = [svg.text(12, 16, title, size=12)]
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts += [svg.rect(_LEFT, bottom, right - _LEFT, 1, svg.GREY)]
    parts += [svg.rect(_LEFT, _TOP, 1, bottom - _TOP, svg.GREY)]
    if not found:
        parts.append(svg.text((_LEFT + right) / 2, 110, "nothing was measured", anchor="middle"))
        return svg.document(_WIDTH, _HEIGHT, parts)
    across, up = _range([x for x, _, _ in found]), _range([y for _, y, _ in found])

    def column(value: float) -> float:
        return _LEFT + (value - across[0]) / (across[1] - across[0]) * (right - _LEFT)

    def line(value: float) -> float:
        return bottom - (value - up[0]) / (up[1] - up[0]) * (bottom - _TOP)

    for x in _ends(x for x, _, _ in found):
        parts.append(svg.text(column(x), bottom + 16, _tick(x), anchor="middle"))
    for y in _ends(y for _, y, _ in found):
        parts.append(svg.text(_LEFT - 6, line(y) + 3, _tick(y), anchor="end"))
    places = {number: (column(x), line(y)) for x, y, number in found}
    parts += svg.line(sorted(places.values()), colour)
    parts += [
        svg.text(x, y - 7, str(number), size=11, anchor="middle")
        for number, (x, y) in places.items()
    ]
    return svg.document(_WIDTH, _HEIGHT, parts)


def _range(values: Sequence[float]) -> tuple[float, float]:
    """From a little below the least value to a little above the greatest."""
    low, high = min(values), max(values)
    room = _ROOM * (high - low or abs(high) or 1.0)
    return low - room, high + room


def _ends(values: Iterable[float]) -> list[float]:
    found = sorted(set(values))
    return [*found[:1], *found[1:][-1:]]


def _tick(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
