"""What tests of the fused tower share: towers of the miniatures, and clips as calibration finds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests import oracle
from tests.models.loaded import tiles
from vlmc.checkpoint.huggingface import tower_tensors
from vlmc.checkpoint.source import open_checkpoint
from vlmc.models.cosine import tile_cosines
from vlmc.models.vision.load import load_tower
from vlmc.models.vision.tower import VisionTower, normalize_tiles

# A LayerNorm with biases, and an RMSNorm with norms of queries and keys.
TOWERS = ("internlm2-300m", "llama-yi-6b")


def tower_of(folder: Path, **changes: Any) -> VisionTower:
    """The fp32 tower of a miniature, with values of its configuration replaced."""
    with open_checkpoint(folder) as checkpoint:
        config = replace(checkpoint.config, **changes)
        tensors = tower_tensors(checkpoint.weights, config)
        return load_tower(config, tensors, dtype=torch.float32, device="cpu")


def some_tiles(count: int) -> Tensor:
    """uint8 tiles (count, 448, 448, 3): one of a photograph, noise, ramps, in turn."""
    generator = torch.Generator().manual_seed(count)
    photograph = tiles(*oracle.FEATURE_PICTURES[0])[:1]
    noise = torch.randint(0, 256, (1, 448, 448, 3), generator=generator, dtype=torch.uint8)
    ramp = (torch.arange(448) * 255 // 447).to(torch.uint8).view(1, 448, 1, 1)
    kinds = [photograph, noise, ramp.expand(1, 448, 448, 3)]
    return torch.cat([kinds[index % 3] for index in range(count)]).contiguous()


@torch.inference_mode()
def reference(tower: VisionTower, pixels: Tensor) -> Tensor:
    """fp32 features of uint8 tiles, a tile at a time."""
    parts = [tower(normalize_tiles(part, torch.float32)) for part in pixels.split(1)]
    return torch.cat(parts)


def clips_of(tower: VisionTower, pixels: Tensor) -> dict[str, float]:
    """The largest magnitude of each linear's input."""
    # Not for all who import this: a runtime is tested without what compiles.
    from vlmc.compile.calibration.observe import observe

    seen = observe(tower, pixels.numpy(), len(pixels), features=0, seed=0)
    return {name: float(inputs.magnitude.max()) for name, inputs in seen.linears.items()}


def worst_cosine(found: Tensor, expected: Tensor) -> float:
    """Of flattened tiles."""
    return float(tile_cosines(found, expected).min())
