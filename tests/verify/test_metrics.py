"""Recall, precision and exact match, counted by hand."""

from __future__ import annotations

import math

import pytest

from vlmc.verify.metrics import (
    NORMALIZE,
    LabelledAnswer,
    PairedDrop,
    Share,
    normalize,
    recall_drop,
    score,
    score_by_question,
)

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
        LabelledAnswer("room", "yes", "Yes.", YES),  # found
        LabelledAnswer("room", "yes", "ja", YES),  # found, though not exactly
        LabelledAnswer("room", "yes", "no", YES),  # missed
        LabelledAnswer("room", "no", "YES", YES),  # claimed wrongly
        LabelledAnswer("room", "no", "no", YES),
        LabelledAnswer("count", "3", "3"),
        LabelledAnswer("count", "3", "4"),
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
    assert math.isnan(
        score([LabelledAnswer("q", "yes", "no", YES), LabelledAnswer("q", "no", "yes", YES)]).f1
    )


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ((), "Ｙes."),
        (("nfkc",), "Yes."),
        (("casefold",), "ｙes."),
        (("strip_punctuation",), "Ｙes"),
        (("nfkc", "casefold"), "yes."),
        (NORMALIZE, "yes"),
    ],
)
def test_each_step_acts_alone(steps: tuple[str, ...], expected: str) -> None:
    assert normalize(" Ｙes. ", steps) == expected


def test_steps_decide_what_is_right() -> None:
    judged = [LabelledAnswer("room", "yes", "Yes.", ("yes",))]
    assert score(judged).exact.hits == score(judged).recall.hits == 1
    assert score(judged, ["casefold"]).exact.hits == 0
    assert score(judged, ["casefold"]).recall == Share(0, 1)


def test_recall_drop_counts_pairs() -> None:
    def judged(answer: str) -> LabelledAnswer:
        return LabelledAnswer("room", "yes", answer, YES)

    before = [
        judged("yes"),
        judged("yes"),
        judged("no"),
        judged("no"),
        LabelledAnswer("q", "3", "3"),
    ]
    after = [judged("no"), judged("ja"), judged("yes"), judged("no"), LabelledAnswer("q", "3", "4")]
    drop = recall_drop(before, after)
    assert (drop.lost, drop.gained, drop.n) == (1, 1, 4)
    assert drop.value == 0
    recalls = score(before).recall.value, score(after).recall.value
    assert recalls == (0.5, 0.5)


@pytest.mark.parametrize(("lost", "gained"), [(0.02, 0.01), (0.05, 0.05), (0.005, 0.0)])
@pytest.mark.parametrize("n", [50, 200])
def test_paired_interval_covers_the_truth(lost: float, gained: float, n: int) -> None:
    """The exact chance, over every outcome that is not out of reach."""
    covered = 0.0
    for one in range(n // 3):
        for other in range(n // 3):
            rest = n - one - other
            ways = math.comb(n, one) * math.comb(n - one, other)
            chance = ways * lost**one * gained**other * (1 - lost - gained) ** rest
            low, high = PairedDrop(one, other, n).interval
            covered += chance * (low <= lost - gained <= high)
    assert 0.94 <= covered <= 1


def test_paired_interval_turns_with_the_sides_and_knows_nothing_of_nothing() -> None:
    low, high = PairedDrop(8, 3, 413).interval
    assert PairedDrop(3, 8, 413).interval == pytest.approx((-high, -low))
    assert low < PairedDrop(8, 3, 413).value < high
    assert PairedDrop(0, 0, 0).interval == (-1.0, 1.0)
    assert math.isnan(PairedDrop(0, 0, 0).value)


@pytest.mark.parametrize(
    ("lost", "gained", "expected"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (5, 5, 1.0),
        (6, 0, 0.03125),
        (0, 6, 0.03125),
        (9, 2, 0.0654296875),  # scipy.stats.binomtest(2, 11).pvalue
        (3000, 1000, 0.0),
    ],
)
def test_mcnemars_exact_test(lost: int, gained: int, expected: float) -> None:
    assert PairedDrop(lost, gained, 5000).p_value == pytest.approx(expected, abs=1e-9)
