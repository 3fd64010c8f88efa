"""Tokens of a reference's answers and the likeliest others, as arrays of its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vlmc.runtime.scheduler.sequence import TopTokens
from vlmc.verify.source import SourceAnswer

_TOKENS, _IDS, _LOGPROBS = "answer_tokens", "top_tokens", "top_logprobs"


def token_arrays(answers: Sequence[SourceAnswer]) -> dict[str, npt.NDArray[Any]]:
    """Arrays of all positions P of all answers, in order: tokens (P,) int32, the K likeliest
    tokens (P, K) int32 and their log-probabilities (P, K) float32; none without such."""
    top = [position for answer in answers for position in answer.top]
    if not top:
        return {}
    return {
        _TOKENS: np.array([token for answer in answers for token in answer.token_ids], np.int32),
        _IDS: np.array([ids for ids, _ in top], np.int32),
        _LOGPROBS: np.array([logprobs for _, logprobs in top], np.float32),
    }


def read_tokens(
    counts: Sequence[int], arrays: Mapping[str, npt.NDArray[Any]]
) -> list[tuple[tuple[int, ...], tuple[TopTokens, ...]]]:
    """Tokens and likeliest tokens of each answer, of which `counts` has the positions.

    Raises:
        ValueError: the arrays do not fit the counts or each other, or are not finite.
        KeyError: one is missing.
    """
    if not any(counts):
        return [((), ()) for _ in counts]
    tokens, ids, logprobs = arrays[_TOKENS], arrays[_IDS], arrays[_LOGPROBS]
    total = sum(counts)
    if (
        tokens.shape != (total,)
        or ids.shape != logprobs.shape
        or ids.shape[:1] != (total,)
        or [str(array.dtype) for array in (tokens, ids, logprobs)] != ["int32", "int32", "float32"]
        or not np.isfinite(logprobs).all()
    ):
        raise ValueError("its answers' tokens do not belong together")
    found = []
    at = 0
    for count in counts:
        part = slice(at, at + count)
        top = tuple(
            (tuple(one.tolist()), tuple(other.tolist()))
            for one, other in zip(ids[part], logprobs[part], strict=True)
        )
        found.append((tuple(tokens[part].tolist()), top))
        at += count
    return found
