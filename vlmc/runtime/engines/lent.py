"""An engine that several models use one after another."""

from __future__ import annotations

import torch
from torch import Tensor

from vlmc.runtime.engines.engine import VisionEngine


class Lent:
    """An engine that several models use one after another: `close` leaves it open.

    With `through_cpu` its features are copied to the host and back, as a pipeline does whose parts
    hand over arrays.
    """

    def __init__(self, engine: VisionEngine, *, through_cpu: bool = False) -> None:
        self._engine, self._through_cpu = engine, through_cpu
        self.name, self.precision, self.profiles = engine.name, engine.precision, engine.profiles
        self.device, self.device_memory_bytes = engine.device, engine.device_memory_bytes

    def infer(
        self, tiles: Tensor, out: Tensor | None = None, stream: torch.cuda.Stream | None = None
    ) -> Tensor:
        """See `VisionEngine`."""
        features = self._engine.infer(tiles, out, stream)
        return features.cpu().to(self.device) if self._through_cpu else features

    def close(self) -> None:
        """Does nothing."""
