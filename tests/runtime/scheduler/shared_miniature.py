"""The loop over a miniature that several devices share, without an artifact; run as their
follower, it loads its shard from the checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tests.runtime.scheduler.serving import Service, start
from vlmc.artifact.manifest import Profile, RuntimeRules
from vlmc.bench.engines import EagerEngine
from vlmc.checkpoint.huggingface import language_tensors, stored_quantization
from vlmc.checkpoint.source import open_checkpoint
from vlmc.distributed.group import ALONE, Group
from vlmc.models.language.decoder import Decoder
from vlmc.models.language.load import load_decoder
from vlmc.runtime.follower import follow
from vlmc.runtime.memory_plan import cache_tokens
from vlmc.runtime.team import start_team

MODULE = "tests.runtime.scheduler.shared_miniature"


def load_shard(settings: Mapping[str, Any], device: torch.device, group: Group = ALONE) -> Decoder:
    """The decoder of `checkpoint` in `dtype`, quantized as the checkpoint is."""
    with open_checkpoint(Path(settings["checkpoint"])) as checkpoint:
        whole, weights = checkpoint.config, checkpoint.weights
        return load_decoder(
            whole.language,
            language_tensors(weights, whole.language, quantization=whole.quantization),
            dtype=getattr(torch, settings["dtype"]),
            device=device,
            quantization=stored_quantization(weights, whole),
            group=group,
        )


def open_parts(
    settings: Mapping[str, Any], device: torch.device, group: Group
) -> tuple[Decoder, EagerEngine]:
    """The decoder, and an engine that nothing uses."""
    engine = EagerEngine(lambda tiles: tiles, "fp32", device, Profile(1, 1, 1))
    return load_shard(settings, device, group), engine


@contextmanager
def share(
    checkpoint: Path, dtype: str, device: torch.device, *, policy: str, cuda_graphs: bool = True
) -> Iterator[Service]:
    """A service on two devices from `device` on."""
    rules = RuntimeRules(cuda_graphs=cuda_graphs, max_batch_tokens=700)
    settings = {"checkpoint": str(checkpoint), "dtype": dtype, "runtime": asdict(rules)}
    with start_team(MODULE, settings, device, 2) as team:
        decoder = load_shard(settings, device, team.group)
        team.wait()
        tokens = min(4096, cache_tokens(decoder, rules.max_batch_tokens))
        service = start(
            decoder, policy=policy, cuda_graphs=cuda_graphs, cache_tokens=tokens, lead=team.lead
        )
        try:
            yield service
        finally:
            service.loop.close()


if __name__ == "__main__":
    follow(open_parts)
