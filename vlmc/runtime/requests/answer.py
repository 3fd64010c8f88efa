"""The answer to a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vlmc.image.decode import ImageNote


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds. Vision, prefill and decode are those of the group of requests on the same
    images that ran together; vision is about 0 where the features were cached."""

    prepare_ms: float
    vision_ms: float
    prefill_ms: float
    decode_ms: float


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one request.

    `token_ids` are the new tokens, with the stop token if it came. `finish_reason` is `stop`,
    `length`, or `choice` when the answer is the best of given choices. `image_notes` is, for each
    image, what decoding left unused of it: `rotation_ignored`, `clipped_to_8_bits`.
    `prompt_tokens_reused` of the prompt's tokens were not computed for this request: an earlier
    one had the same beginning.
    """

    text: str
    token_ids: tuple[int, ...]
    prompt_token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length", "choice"]
    image_tokens: int
    image_notes: tuple[frozenset[ImageNote], ...]
    prompt_tokens_reused: int
    engine: str
    timings: Timings
