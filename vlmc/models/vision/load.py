"""Load the vision tower from named tensors."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from vlmc.models.fill import Placed, fill_parameters
from vlmc.models.vision.tower import TowerConfig, VisionTower


def load_tower(
    config: TowerConfig,
    tensors: Iterable[tuple[str, Tensor]],
    *,
    dtype: torch.dtype,
    device: torch.device | str,
) -> VisionTower:
    """The vision tower with projector, in `dtype` on `device`, ready for inference.

    Raises:
        CheckpointError: a tensor is missing, unknown, doubled or of another shape.
    """
    with torch.device("meta"):
        tower = VisionTower(config)
    fill_parameters(tower, (Placed(name, tensor, name) for name, tensor in tensors), dtype, device)
    return tower.eval()
