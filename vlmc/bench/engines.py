"""Vision engines that only a measurement uses: eager torch, features by way of the CPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vlmc.artifact.manifest import Profile
from vlmc.models.vision.tower import VisionTower, normalize_tiles

BATCH = Profile(1, 26, 104)
"""Tiles of a synthetic engine's batches; one compiled package takes all of them."""


class EagerEngine:
    """A tower without compilation, in batches of at most `profiles[0].max` tiles."""

    name = "eager"
    device_memory_bytes = 0

    def __init__(
        self,
        run: Callable[[Tensor], Tensor],
        precision: str,
        device: torch.device,
        profile: Profile,
    ) -> None:
        """`run` makes features (N, 256, hidden) of uint8 tiles (N, 448, 448, 3)."""
        self._run: Callable[[Tensor], Tensor] | None = run
        self.precision, self.device, self.profiles = precision, device, (profile,)

    def infer(
        self, tiles: Tensor, out: Tensor | None = None, stream: torch.cuda.Stream | None = None
    ) -> Tensor:
        """See `VisionEngine`."""
        run = self._run
        if run is None:
            raise RuntimeError("the engine is closed")
        with torch.inference_mode(), torch.cuda.stream(stream):
            parts = [run(part) for part in torch.split(tiles, self.profiles[0].max)]
            features = parts[0] if len(parts) == 1 else torch.cat(parts)
            return features if out is None else out.copy_(features)

    def close(self) -> None:
        """Let the weights go."""
        self._run = None


def eager_engine(
    tower: VisionTower, dtype: torch.dtype, precision: str, profile: Profile
) -> EagerEngine:
    """Plain torch in `dtype`, as the original runs; converts the tower in place."""
    device = next(tower.parameters()).device
    converted = tower.to(dtype)

    def run(tiles: Tensor) -> Tensor:
        features: Tensor = converted(normalize_tiles(tiles, dtype))
        return features

    return EagerEngine(run, precision, device, profile)
