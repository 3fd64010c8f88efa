"""Load the vision tower from a stream of named tensors."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from vlmc.models.fill import MappedTensor, fill_parameters
from vlmc.models.vision.tower import TowerConfig, VisionTower


def load_tower(
    config: TowerConfig,
    tensors: Iterable[tuple[str, Tensor]],
    *,
    dtype: torch.dtype,
    device: torch.device | str,
) -> VisionTower:
    """Vision tower and projector in `dtype` on `device`, in eval mode.

    Raises:
        CheckpointError: a tensor is missing, unknown, duplicated or has the wrong shape.
    """
    with torch.device("meta"):
        tower = VisionTower(config)
    fill_parameters(
        tower, (MappedTensor(name, tensor, name) for name, tensor in tensors), dtype, device
    )
    return tower.eval()
