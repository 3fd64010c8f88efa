"""How many tokens the KV cache of a loaded model holds."""

from __future__ import annotations

import torch

from vlmc.checkpoint.config import LanguageConfig
from vlmc.errors import HardwareError
from vlmc.machine.memory import available_bytes
from vlmc.models.language.decoder import Decoder
from vlmc.models.language.memory import (
    LEAST_TOKENS,
    cache_bytes_per_token,
    least_free_bytes,
    tokens_that_fit,
)
from vlmc.runtime.scheduler.service import step_tokens

# A quarter of the memory that is free after loading: other programs need the rest.
_CPU_PARTS = 4
STEPS_HELD = 8
"""Steps whose prompts are prepared, run or decoded at a time. An answer of five tokens takes six
steps from its prompt to the reading of its last token; with fewer the GPU waits for requests."""


def cache_tokens(decoder: Decoder, max_batch_tokens: int) -> int:
    """Tokens that the KV cache gets: `STEPS_HELD` steps' prompts, and the longest single sequence.

    Less where memory is short; what a step computes beside the cache is left free. All ranks of a
    group call it together, and get what fits on the one with the least memory.

    Raises:
        HardwareError: not even one image with a question fits.
    """
    weight, config, group = decoder.embed_tokens.weight, decoder.config, decoder.group
    device, element_bytes = weight.device, weight.element_size()
    group.minimum(0, device)  # connects the devices, which takes memory
    a_token = cache_bytes_per_token(config, element_bytes)
    step = step_tokens(max_batch_tokens, device)
    largest = max(STEPS_HELD * step, context_limit(config) + step)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        free = group.minimum(free, device)
        needed = least_free_bytes(config, element_bytes, step)
        fitting = tokens_that_fit(config, element_bytes, free, step)
    else:
        free = group.minimum(available_bytes() // group.shard.count, device)
        needed = _CPU_PARTS * LEAST_TOKENS * a_token
        fitting = free // _CPU_PARTS // a_token
    if free < needed:
        place = device if group.is_alone else "the fullest of the model's devices"
        raise HardwareError(
            f"{free:,} bytes are free on {place} after loading the weights, and {needed:,} are "
            f"needed to run one image with a question in steps of {step:,} tokens. Free memory, "
            "lower runtime.max_batch_tokens, use language.scheme: w4a16, or share the model out "
            "over more GPUs (devices=2, --devices 2)."
        )
    return min(largest, fitting)


def context_limit(config: LanguageConfig) -> int:
    """Positions that the model was made for; dynamic rope stretches them by its factor."""
    scaling = config.rope_scaling
    if scaling.kind == "dynamic":
        return int(config.max_positions * scaling.factor)
    return config.max_positions
