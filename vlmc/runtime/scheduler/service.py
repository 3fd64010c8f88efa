"""A language model ready to serve: cache, scheduler, step runner and loop, made to fit."""

from __future__ import annotations

import torch

from vlmc.artifact.manifest import RuntimeRules
from vlmc.models.language.decoder import Decoder
from vlmc.models.language.packed_decoder import PackedDecoder
from vlmc.models.language.paged_cache import PagedCache, pages_for
from vlmc.runtime.cache.page_pool import PagePool
from vlmc.runtime.engines.language_kernels import run_all_kernels
from vlmc.runtime.scheduler.decode_graphs import DecodeGraphs
from vlmc.runtime.scheduler.lead import Lead
from vlmc.runtime.scheduler.loop import Encoder, ServingLoop
from vlmc.runtime.scheduler.scheduler import Scheduler
from vlmc.runtime.scheduler.step_runner import StepRunner

# A core's caches are small: larger steps gain nothing on a CPU and hold more memory.
_CPU_STEP_TOKENS = 4096
_LANES = 512
# Longer sequences decode without a graph.
_MAX_GRAPH_TOKENS = 1 << 16


def step_tokens(max_batch_tokens: int, device: torch.device) -> int:
    """Tokens of a step at most, by the rule `runtime.max_batch_tokens` and the device."""
    return max_batch_tokens if device.type == "cuda" else min(max_batch_tokens, _CPU_STEP_TOKENS)


def serve(
    decoder: Decoder,
    encoder: Encoder,
    *,
    stop_id: int,
    rules: RuntimeRules,
    cache_tokens: int,
    lead: Lead | None = None,
) -> ServingLoop:
    """Start the loop of a decoder, with a KV cache of `cache_tokens`.

    In a group this is rank 0, and the others call `make_runner` meanwhile.
    """
    budget = step_tokens(rules.max_batch_tokens, decoder.embed_tokens.weight.device)
    runner = make_runner(decoder, rules, cache_tokens, lead or Lead())
    scheduler = Scheduler(PagePool(pages_for(cache_tokens)), budget, _LANES)
    return ServingLoop(scheduler, runner, encoder, stop_id=stop_id)


def make_runner(decoder: Decoder, rules: RuntimeRules, cache_tokens: int, lead: Lead) -> StepRunner:
    """What runs the steps of a decoder, with its KV cache; on a GPU with all kernels compiled."""
    weight = decoder.embed_tokens.weight
    device = weight.device
    pages = pages_for(cache_tokens)
    with torch.inference_mode():
        # One page more, for the rows that only pad a graph.
        cache = PagedCache(decoder.config, pages + 1, dtype=weight.dtype, device=device)
        packed = PackedDecoder(decoder, cache)
        if device.type == "cuda":
            run_all_kernels(packed)
        runner = StepRunner(packed, _LANES, lead)
        if rules.cuda_graphs and device.type == "cuda":
            runner.graphs = DecodeGraphs(
                packed,
                runner.last_tokens,
                spare_page=pages,
                spare_lane=_LANES,
                max_pages=pages_for(min(cache_tokens, _MAX_GRAPH_TOKENS)),
            )
    return runner
