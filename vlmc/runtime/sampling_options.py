"""The options of a request, checked."""

from __future__ import annotations

import math

from vlmc.errors import UsageError
from vlmc.runtime.scheduler.sequence import Sampling


def make_sampling(
    max_new_tokens: int = 5, temperature: float = 0.0, top_p: float = 1.0, seed: int = 0
) -> Sampling:
    """How an answer is generated.

    Raises:
        UsageError: an option is of the wrong type or out of range.
    """
    for name, value, kinds in (
        ("max_new_tokens", max_new_tokens, int),
        ("seed", seed, int),
        ("temperature", temperature, int | float),
        ("top_p", top_p, int | float),
    ):
        if isinstance(value, bool) or not isinstance(value, kinds):
            kind = "a whole number" if kinds is int else "a number"
            raise UsageError(f"{name} is {value!r:.100}; it must be {kind}")
    if max_new_tokens < 1 or not 0 <= temperature < math.inf or not 0 < top_p <= 1:
        raise UsageError(
            f"max_new_tokens is {max_new_tokens}, temperature {temperature} and top_p {top_p}; "
            "they must be at least 1, at least 0, and above 0 up to 1"
        )
    return Sampling(max_new_tokens, float(temperature), float(top_p), seed)
