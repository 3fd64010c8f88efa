"""How cosines, margins and divergences are distributed, as counts for the report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from vlmc.verify.gate import Checked
from vlmc.verify.metrics import normalize

_POWERS = [float(f"{first}e{power}") for power in range(-8, 0) for first in (1, 3)]
# 1 - cosine is 2 where features point the other way, or are not finite.
_DISTANCE = (0.0, *_POWERS, 1.0, 2.0)
_NATS = (0.0, *_POWERS[4:], 1.0, None)
_MARGIN = (0.0, 0.1, 0.3, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, None)
_PROBABILITY = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.99, 0.999, 1.0)
_Edges = Sequence[float | None]


def histograms(checked: Checked) -> dict[str, dict[str, Any]]:
    """The JSON form: each histogram has `edges`, the last None for no end, and `counts`.

    - `feature_distance`: 1 - cosine of each sample tile, at its worst number of tiles at once.
    - `first_probability`: of the first token of the source's answer, by whether the artifact
      agrees with the answer.
    - `first_margin`: by how much that token's log-probability is above the second likeliest's.
    - `first_divergence`: Kullback-Leibler divergence of the first token, in nats.
    """
    worst = np.min([*checked.features.cosines.values()], axis=0)
    pairs, steps = checked.answers.pairs, checked.answers.steps
    agrees = [
        normalize(pair.reference.text, steps) == normalize(pair.answer, steps) for pair in pairs
    ]
    sure = [math.exp(pair.reference.first_logprob) for pair in pairs]
    values = {
        "feature_distance": _histogram(_DISTANCE, {"tiles": np.clip(1 - worst, 0, 2)}),
        "first_probability": _histogram(_PROBABILITY, _split(sure, agrees)),
    }
    tops = [pair.reference.top for pair in pairs]
    if all(tops):
        margins = [first[1][0] - first[1][1] for first, *_ in tops]
        values["first_margin"] = _histogram(_MARGIN, _split(margins, agrees))
    if checked.divergence is not None:
        divergences = _split(checked.divergence.first, agrees)
        values["first_divergence"] = _histogram(_NATS, divergences)
    return values


def _split(values: Sequence[float], agrees: Sequence[bool]) -> dict[str, list[float]]:
    both = [*zip(values, agrees, strict=True)]
    return {
        "agreeing": [value for value, agreed in both if agreed],
        "disagreeing": [value for value, agreed in both if not agreed],
    }


def _histogram(edges: _Edges, series: dict[str, Any]) -> dict[str, Any]:
    return {
        "edges": [*edges],
        "counts": {name: _counts(edges, values) for name, values in series.items()},
    }


def _counts(edges: _Edges, values: Iterable[float]) -> list[int]:
    bounds = [math.inf if edge is None else edge for edge in edges]
    # What rounding puts beyond an end belongs to the class there.
    places = np.clip(np.searchsorted(bounds, [*values], side="right") - 1, 0, len(bounds) - 2)
    return [int(count) for count in np.bincount(places, minlength=len(bounds) - 1)]
