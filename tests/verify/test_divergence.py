"""Divergence of next-token probabilities, against whole distributions by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vlmc.verify.divergence import DivergenceCheck, continuations, divergences
from vlmc.verify.source import SourceAnswer


def distribution(seed: int, size: int = 50) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(size=size) * 2
    return logits - np.log(np.exp(logits).sum())


def answer_of(positions: list[np.ndarray], kept: int) -> SourceAnswer:
    top = []
    for logprobs in positions:
        ids = np.argsort(-logprobs)[:kept]
        top.append((tuple(ids.tolist()), tuple(logprobs[ids].tolist())))
    tokens = tuple(ids[0] for ids, _ in top)
    return SourceAnswer("", top[0][1][0], tokens, tuple(top))


def scores_of(answer: SourceAnswer, positions: list[np.ndarray]) -> dict[tuple[int, ...], float]:
    return {
        tokens: float(positions[len(tokens) - 1][tokens[-1]])
        for continuation in continuations(answer)
        for tokens in (continuation[: end + 1] for end in range(len(continuation)))
    }


def test_of_all_tokens_it_is_the_divergence_itself() -> None:
    source = [distribution(seed) for seed in (1, 2, 3)]
    artifact = [distribution(seed) for seed in (4, 5, 6)]
    answer = answer_of(source, 50)
    expected = [float((np.exp(p) * (p - q)).sum()) for p, q in zip(source, artifact, strict=True)]
    assert divergences(answer, scores_of(answer, artifact)) == pytest.approx(expected)


def test_all_other_tokens_count_as_one() -> None:
    source, artifact = [distribution(1)], [distribution(2)]
    answer = answer_of(source, 10)
    ids = list(answer.top[0][0])
    p, q = np.exp(source[0]), np.exp(artifact[0])
    rest = 1 - p[ids].sum(), 1 - q[ids].sum()
    expected = (p[ids] * np.log(p[ids] / q[ids])).sum() + rest[0] * math.log(rest[0] / rest[1])
    (found,) = divergences(answer, scores_of(answer, artifact))
    assert found == pytest.approx(expected)
    assert found < (p * np.log(p / q)).sum()


def test_equal_probabilities_do_not_diverge() -> None:
    source = [distribution(1), distribution(2)]
    answer = answer_of(source, 10)
    assert divergences(answer, scores_of(answer, source)) == pytest.approx((0, 0), abs=1e-9)


def test_no_continuation_begins_another() -> None:
    """Else the end of the answer would be scored too."""
    answer = answer_of([distribution(seed) for seed in (1, 2, 3)], 8)
    found = continuations(answer)
    assert len(found) == len(set(found)) == 8 + 7 + 7
    assert not any(one != other and other[: len(one)] == one for one in found for other in found)


def test_summaries_are_of_the_first_token_and_of_all() -> None:
    values = DivergenceCheck(((0.1, 0.5), (0.3,))).to_json()
    assert values["first_token"] == {"mean": 0.2, "p99": 0.298, "max": 0.3, "n": 2}
    assert values["all_tokens"]["mean"] == 0.3 and values["all_tokens"]["n"] == 3
