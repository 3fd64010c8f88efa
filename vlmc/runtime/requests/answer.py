"""The answer to a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vlmc.image.decode import ImageNote

FinishReason = Literal["stop", "length", "choice"]


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds. Vision is that of the batch that the request's images were encoded in, about 0
    where their features were cached; prefill is from the first step to the first token, and decode
    from there to the last. Steps serve other requests too, so these do not add up over requests.
    """

    prepare_ms: float
    vision_ms: float
    prefill_ms: float
    decode_ms: float


@dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """The answer to one request.

    `token_ids` are the new tokens, with the stop token if it came, and `token_logprobs` their
    log-probabilities, empty for a choice. `top_logprobs` are, for each of them, ids and
    log-probabilities of the likeliest tokens, the likeliest first, where a request asks for them.
    `finish_reason` is `stop`, `length`, or `choice` when the answer is the best of given choices.
    `image_notes` is, for each image, what decoding left unused of it: `rotation_ignored`,
    `clipped_to_8_bits`.
    `prompt_tokens_reused` of the prompt's tokens were not computed for this request: an earlier
    one had the same beginning.

    >>> (answer,) = model.generate([("room.jpg", "A door?")])
    >>> answer.image_tokens, len(answer.token_logprobs) == len(answer.token_ids)
    (256, True)
    """

    text: str
    token_ids: tuple[int, ...]
    token_logprobs: tuple[float, ...]
    prompt_token_ids: tuple[int, ...]
    finish_reason: FinishReason
    image_tokens: int
    image_notes: tuple[frozenset[ImageNote], ...]
    prompt_tokens_reused: int
    engine: str
    timings: Timings
    top_logprobs: tuple[tuple[tuple[int, ...], tuple[float, ...]], ...] = ()

    def __repr__(self) -> str:
        return (
            f"Answer({self.text!r:.80}, {self.finish_reason}, {len(self.prompt_token_ids)} prompt "
            f"tokens, {self.image_tokens} of images)"
        )
