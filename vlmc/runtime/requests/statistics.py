"""What a loaded model has computed, and what it could take from earlier requests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts since the artifact was loaded.

    `prompt_tokens_computed` and `prompt_tokens_reused` add up to all tokens of all prompts, image
    tokens included; reused are those whose keys and values come from an earlier request.
    `new_tokens` are generated, stop tokens included; scores of choices generate none. An unusable
    request counts nothing but the images that were decoded for it.
    """

    images_decoded: int = 0
    tiles_encoded: int = 0
    prompt_tokens_computed: int = 0
    prompt_tokens_reused: int = 0
    new_tokens: int = 0
