"""Recall, precision and exact match, counted by hand."""

from __future__ import annotations

import math

import pytest

from vlmc.verify.metrics import Judged, Share, normalize, score, score_by_question

YES = ("yes", "Ja.")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes.", "yes"),
        ("  NO!\n", "no"),
        ("Ｙｅｓ", "yes"),
        ("是。", "是"),
        ("straße", "strasse"),
        ("“two”", "two"),
        ("fire extinguisher", "fire extinguisher"),
        ("", ""),
    ],
)
def test_normalized(text: str, expected: str) -> None:
    assert normalize(text) == expected


def test_counts() -> None:
    judged = [
        Judged("room", "yes", "Yes.", YES),  # found
        Judged("room", "yes", "ja", YES),  # found, though not exactly
        Judged("room", "yes", "no", YES),  # missed
        Judged("room", "no", "YES", YES),  # claimed wrongly
        Judged("room", "no", "no", YES),
        Judged("count", "3", "3"),
        Judged("count", "3", "4"),
    ]
    scores = score(judged)
    assert (scores.exact.hits, scores.exact.n) == (3, 7)
    assert (scores.recall.hits, scores.recall.n) == (2, 3)
    assert (scores.precision.hits, scores.precision.n) == (2, 3)
    assert scores.f1 == pytest.approx(2 / 3)
    by_question = score_by_question(judged)
    assert list(by_question) == ["count", "room"]
    assert by_question["room"].recall == scores.recall
    assert by_question["count"].exact == Share(1, 2)
    assert by_question["count"].recall.n == 0


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    # Newcombe 1998, table I: Wilson's method without continuity correction.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_interval(hits: int, n: int, low: float, high: float) -> None:
    assert Share(hits, n).interval == pytest.approx((low, high), abs=5e-5)
    mirrored = Share(n - hits, n).interval
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_nothing_is_known_of_nothing() -> None:
    assert Share(0, 0).interval == (0.0, 1.0)
    assert math.isnan(Share(0, 0).value)
    assert math.isnan(score([]).f1)
    assert math.isnan(score([Judged("q", "yes", "no", YES), Judged("q", "no", "yes", YES)]).f1)
