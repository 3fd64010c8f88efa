"""How many tokens the KV cache of a loaded model holds."""

from __future__ import annotations

import torch

from vlmc.checkpoint.config import LanguageConfig
from vlmc.errors import HardwareError
from vlmc.image.tiles import TOKENS_PER_TILE
from vlmc.machine.memory import available_bytes
from vlmc.models.language.decoder import Decoder
from vlmc.models.language.paged_cache import PAGE_TOKENS, PagedCache
from vlmc.runtime.scheduler.service import step_tokens

# One image of the published rule's 13 tiles with a question: what every model must be able to run.
_LEAST_TOKENS = 14 * TOKENS_PER_TILE
# Of the memory that is free after loading, for what is not counted: libraries, fragmentation.
_CUDA_SHARE, _CPU_SHARE = 0.9, 0.25
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
    dtype, device = weight.dtype, weight.device
    group.minimum(0, device)  # connects the devices, which takes memory
    a_token = PagedCache.bytes_per_page(config, dtype) / PAGE_TOKENS
    step = step_tokens(max_batch_tokens, device)
    largest = max(STEPS_HELD * step, context_limit(config) + step)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        free = group.minimum(free, device)
        usable = int(_CUDA_SHARE * free) - activation_bytes(config, dtype, step)
    else:
        free = group.minimum(available_bytes() // group.shard.count, device)
        usable = int(_CPU_SHARE * free)
    fitting = int(usable / a_token)
    if fitting < _LEAST_TOKENS:
        place = device if group.is_alone else "the fullest of the model's devices"
        raise HardwareError(
            f"{free:,} bytes are free on {place} after loading the weights. The KV cache takes "
            f"{a_token:,.0f} bytes a token, and one image with a question up to {_LEAST_TOKENS:,} "
            "tokens. Free memory, lower runtime.max_batch_tokens, use language.scheme: w4a16, or "
            "share the model out over more GPUs (devices=2, --devices 2)."
        )
    return min(largest, fitting)


def activation_bytes(config: LanguageConfig, dtype: torch.dtype, tokens: int) -> int:
    """Memory that a step of so many tokens takes beside weights and cache, at most."""
    widths = (
        4 * config.hidden_size
        + 2 * (config.heads + 2 * config.kv_heads) * config.head_dim
        + 3 * config.intermediate_size
    )
    return tokens * widths * dtype.itemsize


def context_limit(config: LanguageConfig) -> int:
    """Positions that the model was made for; dynamic rope stretches them by its factor."""
    scaling = config.rope_scaling
    if scaling.kind == "dynamic":
        return int(config.max_positions * scaling.factor)
    return config.max_positions
