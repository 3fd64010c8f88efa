"""Put a decoder, its prompts and a vision engine together to a model that serves."""

from __future__ import annotations

import torch

from vlmc.artifact.integrity import Artifact
from vlmc.artifact.manifest import EngineRecord, RuntimeRules
from vlmc.errors import HardwareError
from vlmc.image.tiles import TileRule
from vlmc.models.language.decoder import Decoder
from vlmc.progress.channel import notes_on_stderr
from vlmc.runtime.engines.engine import VisionEngine
from vlmc.runtime.engines.graphed_engine import CAPTURABLE, GraphedEngine, graph_sizes
from vlmc.runtime.engines.parallel_engine import ParallelEngine
from vlmc.runtime.images.encoder import ImageEncoder
from vlmc.runtime.memory_plan import cache_tokens
from vlmc.runtime.model import Model
from vlmc.runtime.reference_path import ReferencePath
from vlmc.runtime.scheduler.lead import Lead
from vlmc.runtime.scheduler.service import serve
from vlmc.text.prompt import PromptBuilder


def assemble(
    artifact: Artifact,
    decoder: Decoder,
    prompts: PromptBuilder,
    vision: VisionEngine,
    chosen: EngineRecord,
    *,
    tiles: TileRule,
    rules: RuntimeRules,
    lead: Lead | None = None,
) -> Model:
    """A model on the decoder's device, with a KV cache of its own. It closes `vision` with itself,
    and the followers of `lead`, which rank 0 of a group needs.

    Raises:
        HardwareError: not even one image with a question fits in the memory that is free.
    """
    weight = decoder.embed_tokens.weight
    lead = lead or Lead()
    reference = ReferencePath(
        decoder, vision, prompts.stop_id, artifact.manifest.image.tokens_per_tile, lead
    )
    vision = with_graphs(vision, rules)
    if not lead.is_alone:
        vision = ParallelEngine(vision, decoder.group, weight.device, lead.encode)
    encoder = ImageEncoder(
        vision,
        hidden_size=artifact.manifest.hidden_size,
        dtype=weight.dtype,
        device=weight.device,
        tokens_per_tile=artifact.manifest.image.tokens_per_tile,
    )
    tokens = cache_tokens(decoder, rules.max_batch_tokens)
    with notes_on_stderr():
        loop = serve(
            decoder,
            encoder,
            stop_id=prompts.stop_id,
            rules=rules,
            cache_tokens=tokens,
            lead=lead,
        )
    return Model(
        artifact,
        tiles=tiles,
        prompts=prompts,
        encoder=encoder,
        config=decoder.config,
        loop=loop,
        prefix_cache=rules.prefix_cache,
        engine=f"{vision.name} on {vision.device}",
        chosen=chosen,
        reference=reference,
    )


def with_graphs(engine: VisionEngine, rules: RuntimeRules) -> VisionEngine:
    """The engine with graphs of its small batches, where rules and engine allow them.

    Raises:
        HardwareError: memory is too small.
    """
    if not rules.cuda_graphs or engine.name not in CAPTURABLE:
        return engine
    try:
        return GraphedEngine(engine, graph_sizes(engine.profiles))
    except torch.OutOfMemoryError as error:
        raise HardwareError(
            f"{engine.device} has too little memory free for CUDA graphs of the vision engine: "
            f"{error}. End what else runs there, or build with runtime.cuda_graphs=false."
        ) from error
