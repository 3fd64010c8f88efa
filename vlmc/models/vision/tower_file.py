"""Read `tower.safetensors`, the artifact's vision tower with its configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
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

_INVALID = (OSError, SafetensorError, CheckpointError, TypeError, KeyError, ValueError)


@dataclass(frozen=True, slots=True)
class TowerFileConfig:
    """The configuration in the file's metadata; `hidden_size` is the language model's."""

    vision: VisionConfig
    select_layer: int
    pixel_shuffle: Literal["v1", "v2"]
    hidden_size: int

    @property
    def vision_layers(self) -> int:
        """Number of blocks up to `select_layer`, which are those in the file."""
        return layers_needed(self.vision, self.select_layer)


def read_tower(path: Path, *, dtype: torch.dtype, device: torch.device | str) -> VisionTower:
    """An artifact's tower in eval mode. Only one tensor at a time is in memory twice.

    Raises:
        IntegrityError: the file is not a valid tower file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            config = _config(file.metadata())
            tensors = ((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118
            return load_tower(config, tensors, dtype=dtype, device=device)
    except _INVALID as error:
        raise _not_a_tower(path, error) from error


def read_tower_config(path: Path) -> TowerFileConfig:
    """The configuration alone.

    Raises:
        IntegrityError: the file is not a valid tower file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return _config(file.metadata())
    except _INVALID as error:
        raise _not_a_tower(path, error) from error


def _config(metadata: Mapping[str, str]) -> TowerFileConfig:
    values = json.loads(metadata["config"])
    return TowerFileConfig(**values | {"vision": VisionConfig(**values["vision"])})


def _not_a_tower(path: Path, error: Exception) -> IntegrityError:
    return IntegrityError(f"{path} is not a valid tower file ({error}); copy the artifact again")


def read_tower_and_precision(
    tower: Path, ranges: Path | None, precision: str, device: torch.device
) -> tuple[VisionTower, TowerPrecision]:
    """The migrated fp32 tower on `device`, and the precisions to fuse it with.

    The compiler and the runtime both call this, so a package always gets the weights it was
    compiled for.

    Args:
        tower: path of `tower.safetensors`.
        ranges: path of `ranges.json`, if the artifact has one.
        precision: the artifact's vision precision.
        device: where to load the tower.

    Raises:
        IntegrityError: a file is not valid, or `precision` needs ranges and there are none.
    """
    calibrated = None if ranges is None else read_ranges(ranges)
    tower_precision = tower_precision_of(precision, calibrated)
    loaded = read_tower(tower, dtype=torch.float32, device=device)
    if calibrated is not None:
        try:
            migrate(loaded, calibrated)
        except (KeyError, RuntimeError) as error:
            raise IntegrityError(
                f"{ranges} belongs to another tower ({error}); build the artifact again"
            ) from error
    return loaded, tower_precision
