"""A vision tower with random weights, and random tiles.

Weights have a realistic scale and a fixed seed, and differ between CPU and GPU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlmc.compile.calibration.observe import observe
from vlmc.models.vision.calibration_ranges import LinearRange, Ranges
from vlmc.models.vision.tower import VisionTower
from vlmc.models.vision.tower_file import TowerFileConfig
from vlmc.models.vision.tower_precision import TowerPrecision

DTYPES = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp8": torch.float16,
}
"""Precision → dtype of what is not in 8 bits."""
_CALIBRATION_SEED = 7


def random_tower(config: TowerFileConfig, device: torch.device) -> VisionTower:
    """A deterministic fp32 tower: linears keep unit variance, layer scales are near 0.1."""
    with device:
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


def random_precision(tower: VisionTower, precision: str) -> TowerPrecision:
    """What to fuse the tower with; fp8 is calibrated on a few tiles, eight on a GPU."""
    clips = {}
    if precision == "fp8":
        device = next(tower.parameters()).device
        count = 8 if device.type == "cuda" else 2
        tiles = random_tiles(count, device, seed=_CALIBRATION_SEED)
        linears = minmax_ranges(tower, tiles).linears
        clips = {name: part.clip for name, part in linears.items() if part.clip is not None}
    return TowerPrecision(DTYPES[precision], clips)


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
