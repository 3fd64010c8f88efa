"""A random tower of InternViT-300M's shape with a projector to 4096, and random tiles.

Weights have a realistic scale and a fixed seed, and differ between CPU and GPU.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from vlmc.checkpoint.config import VisionConfig
from vlmc.compile.calibration.observe import observe
from vlmc.models.vision.calibration_ranges import LinearRange, Ranges
from vlmc.models.vision.tower import VisionTower
from vlmc.models.vision.tower_file import TowerFileConfig

VISION = VisionConfig(hidden_size=1024, layers=24, heads=16, intermediate_size=4096)
LANGUAGE_HIDDEN = 4096


def flops(projector: bool) -> float:
    """FLOPs per tile: two per multiply-add of all matrix products, including attention."""
    tokens, hidden, inner = 1025, VISION.hidden_size, VISION.intermediate_size
    block = 2 * tokens * (4 * hidden * hidden + 2 * hidden * inner) + 4 * tokens**2 * hidden
    embedding = 2 * 1024 * 588 * hidden
    projected = 2 * 256 * (4 * hidden * LANGUAGE_HIDDEN + LANGUAGE_HIDDEN**2)
    return VISION.layers * block + embedding + projector * projected


def random_tower(device: torch.device, layers: int = VISION.layers) -> VisionTower:
    """A deterministic tower: linears keep unit variance, layer scales are near 0.1."""
    with device:
        config = TowerFileConfig(replace(VISION, layers=layers), -1, "v2", LANGUAGE_HIDDEN)
        tower = VisionTower(config)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, parameter in tower.named_parameters():
            drawn = torch.randn(parameter.shape, device=device, generator=generator)
            if name.endswith(("ls1", "ls2")):
                parameter.copy_(0.1 + 0.02 * drawn)
            elif ("norm" in name or name.startswith("mlp1.0")) and name.endswith("weight"):
                parameter.copy_(1 + 0.1 * drawn)
            elif name.endswith("bias"):
                parameter.copy_(0.02 * drawn)
            elif name.endswith("embedding"):
                parameter.copy_(0.1 * drawn)
            else:
                parameter.copy_(drawn / parameter[0].numel() ** 0.5)
    return tower.eval()


def random_tiles(count: int, device: torch.device, seed: int = 1) -> Tensor:
    """uint8 (count, 448, 448, 3): one third noise, the others smooth."""
    generator = torch.Generator(device).manual_seed(seed)
    shape = (count, 448, 448, 3)
    noise = torch.randint(0, 256, shape, device=device, generator=generator, dtype=torch.uint8)
    small = torch.rand(count, 3, 7, 7, device=device, generator=generator)
    large = nn.functional.interpolate(small, size=448, mode="bicubic").clamp(0, 1)
    smooth = large.mul(255).to(torch.uint8).permute(0, 2, 3, 1)
    noisy = (torch.arange(count, device=device) % 3 == 0).view(count, 1, 1, 1)
    return torch.where(noisy, noise, smooth).contiguous()


def minmax_ranges(tower: VisionTower, tiles: Tensor) -> Ranges:
    """Min-max ranges without search and migration, which suffice to measure time and size."""
    seen = observe(tower, tiles.cpu().numpy(), len(tiles), features=0, seed=0)
    linears = {
        name: LinearRange(
            minimum=float(inputs.minimum.min()),
            maximum=float(inputs.maximum.max()),
            clip=float(inputs.magnitude.max()),
            output=inputs.output,
        )
        for name, inputs in seen.linears.items()
    }
    return Ranges(linears, tuple(seen.residual), keep_16bit=(), keep_fp32=(), migration={})
