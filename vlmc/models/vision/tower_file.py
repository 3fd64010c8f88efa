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
from vlmc.models.vision.calibration_ranges import migrate, read_ranges
from vlmc.models.vision.load import load_tower
from vlmc.models.vision.tower import VisionTower
from vlmc.models.vision.tower_precision import TowerPrecision, tower_precision_of


@dataclass(frozen=True, slots=True)
class TowerFileConfig:
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
            config = TowerFileConfig(**values | {"vision": VisionConfig(**values["vision"])})
            tensors = ((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118
            return load_tower(config, tensors, dtype=dtype, device=device)
    except (OSError, SafetensorError, CheckpointError, TypeError, KeyError, ValueError) as error:
        raise IntegrityError(
            f"{path} is no tower of an artifact ({error}); copy the artifact again"
        ) from error


def read_tower_and_precision(
    tower: Path, ranges: Path | None, precision: str, device: torch.device
) -> tuple[VisionTower, TowerPrecision]:
    """The fp32 tower on `device`, its channels migrated, and what to fuse it by.

    A package is compiled from it and loaded with it, so both sides have the same weights.

    Raises:
        IntegrityError: a file is not what `vlmc build` writes, or the precision takes ranges and
            there are none.
    """
    measured = None if ranges is None else read_ranges(ranges)
    plan = tower_precision_of(precision, measured)
    read = read_tower(tower, dtype=torch.float32, device=device)
    if measured is not None:
        try:
            migrate(read, measured)
        except (KeyError, RuntimeError) as error:
            raise IntegrityError(
                f"{ranges} is of another tower ({error}); build the artifact again"
            ) from error
    return read, plan
