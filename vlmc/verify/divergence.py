"""How far the artifact's next-token probabilities are from the source's, along its answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlmc.verify.source import SourceAnswer

# Stands for no probability left in the other tokens; a smaller one would only measure rounding.
_LEAST = 1e-6


@dataclass(frozen=True, slots=True)
class DivergenceCheck:
    """Kullback-Leibler divergence from the source to the artifact in nats, for each answer at each
    of its positions.

    The vocabulary is divided into the source's likeliest tokens and all others together, so a value
    is at most the divergence over single tokens.
    """

    positions: tuple[tuple[float, ...], ...]

    @property
    def first(self) -> list[float]:
        """Of the first token of every answer."""
        return [values[0] for values in self.positions]

    def to_json(self) -> dict[str, Any]:
        """The JSON form."""
        everywhere = [value for values in self.positions for value in values]
        return {"first_token": _summary(self.first), "all_tokens": _summary(everywhere)}


def continuations(answer: SourceAnswer) -> list[tuple[int, ...]]:
    """Tokens whose scores tell the artifact's probabilities at each position of the answer, none
    the beginning of another."""
    found = []
    last = len(answer.token_ids) - 1
    for place, (ids, _) in enumerate(answer.top):
        before = answer.token_ids[:place]
        # What the answer goes on with is scored on the way.
        follows = answer.token_ids[place] if place < last else None
        found += [(*before, token) for token in ids if token != follows]
    return found


def divergences(answer: SourceAnswer, scores: Mapping[tuple[int, ...], float]) -> tuple[float, ...]:
    """The divergence at each position of the source's answer.

    Args:
        scores: the artifact's log-probability of each token given those before it, at least of
            the beginnings of `continuations`.
    """
    values = []
    for place, (ids, logprobs) in enumerate(answer.top):
        before = answer.token_ids[:place]
        values.append(_divergence(logprobs, [scores[(*before, token)] for token in ids]))
    return tuple(values)


def _divergence(source: Sequence[float], artifact: Sequence[float]) -> float:
    """Between the probabilities of some tokens, and of all others as one."""
    total = math.fsum(
        math.exp(one) * (one - other) for one, other in zip(source, artifact, strict=True)
    )
    rest = 1 - math.fsum(map(math.exp, source))
    if rest > _LEAST:
        other = max(1 - math.fsum(map(math.exp, artifact)), _LEAST)
        total += rest * math.log(rest / other)
    # Rounding may leave a little less than nothing.
    return max(0.0, total)


def _summary(values: Sequence[float]) -> dict[str, Any]:
    return {
        "mean": round(float(np.mean(values)), 6),
        "p99": round(float(np.quantile(values, 0.99)), 6),
        "max": round(max(values), 6),
        "n": len(values),
    }
