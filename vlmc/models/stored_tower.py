"""The tower as an artifact holds it: `tower.safetensors`, which tells its own configuration."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open

from vlmc.checkpoint.config import VisionConfig, layers_needed
from vlmc.errors import CheckpointError, IntegrityError
from vlmc.models.loading import load_tower
from vlmc.models.vision import VisionTower

TOWER = "tower.safetensors"


@dataclass(frozen=True, slots=True)
class StoredConfig:
    """What the file says beside its tensors; `hidden_size` is the language model's."""

    vision: VisionConfig
    select_layer: int
    pixel_shuffle: Literal["v1", "v2"]
    hidden_size: int

    @property
    def vision_layers(self) -> int:
        """Blocks that `select_layer` needs, which are those that the file has."""
        return layers_needed(self.vision, self.select_layer)


def read_tower(path: Path, *, dtype: torch.dtype, device: torch.device | str) -> VisionTower:
    """The tower of an artifact, ready for inference; one tensor at a time is held twice.

    Raises:
        IntegrityError: the file is not what `vlmc build` writes.
    """
    try:
        with safe_open(path, framework="pt") as file:
            values = json.loads(file.metadata()["config"])
            config = StoredConfig(**values | {"vision": VisionConfig(**values["vision"])})
            tensors = ((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118
            return load_tower(config, tensors, dtype=dtype, device=device)
    except (OSError, SafetensorError, CheckpointError, TypeError, KeyError, ValueError) as error:
        raise IntegrityError(
            f"{path} is no tower of an artifact ({error}); copy the artifact again"
        ) from error
