"""Calibration ranges of a vision tower, as `ranges.json` stores them.

This module imports no calibration code, because `vlmc rebuild` and the runtime read the file too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vlmc.errors import IntegrityError
from vlmc.models.vision.tower import VisionTower

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class LinearRange:
    """The range of one linear's input after `migrate`, and of its output.

    The activation scale is symmetric and per tensor: `clip` / 127 for int8, `clip` / 448 for fp8.
    `clip` is None if the layer was not calibrated for 8 bits. `output` is the largest output
    magnitude, including bias and layer scale.
    """

    minimum: float
    maximum: float
    clip: float | None
    output: float


@dataclass(frozen=True, slots=True)
class Ranges:
    """Ranges of a tower; names are those of `VisionTower`, such as `mlp1.1`."""

    linears: Mapping[str, LinearRange]
    residual: tuple[float, ...]  # largest magnitude of the residual stream in each block
    keep_16bit: tuple[str, ...]  # linears not quantized by int8 and fp8
    keep_fp32: tuple[str, ...]  # linears and blocks whose values overflow fp16
    migration: Mapping[str, tuple[float, ...]]
    """Linear → a power of two for each input channel, moved from activation to weight."""


def write_ranges(ranges: Ranges, path: Path) -> None:
    """Write `ranges.json`. Equal ranges give identical files."""
    values = {"schema": SCHEMA, **asdict(ranges)}
    path.write_text(json.dumps(values, sort_keys=True, separators=(",", ":")) + "\n")


def read_ranges(path: Path) -> Ranges:
    """Read `ranges.json`.

    Raises:
        IntegrityError: the file is not valid.
    """
    try:
        values: dict[str, Any] = json.loads(path.read_bytes())
        if values.pop("schema") != SCHEMA:
            raise ValueError("unknown schema")
        linears = {name: LinearRange(**part) for name, part in values.pop("linears").items()}
        migration = {name: tuple(part) for name, part in values.pop("migration").items()}
        lists = {name: tuple(part) for name, part in values.items()}
        return Ranges(linears=linears, migration=migration, **lists)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise IntegrityError(
            f"{path} is not a valid ranges file ({error!r}); build the artifact again"
        ) from error


@torch.no_grad()
def migrate(tower: VisionTower, ranges: Ranges) -> None:
    """Move activation outliers into the weights, in place, as SmoothQuant does.

    Each input channel is divided by its factor, and the matching weight column is multiplied by
    it. The division is folded into the preceding norm. For `attn.proj` it is folded into the value
    rows of `attn.qkv`, because attention mixes tokens but not channels. All factors are powers of
    two, so the tower's output stays bit-identical.
    """
    for name, factors in ranges.migration.items():
        weight = linear_of(tower, name).weight
        divide = torch.tensor(factors, dtype=weight.dtype, device=weight.device)
        weight.mul_(divide)
        for parameter in _producers(tower, name):
            parameter.div_(divide if parameter.ndim == 1 else divide[:, None])


def linear_of(tower: nn.Module, name: str) -> nn.Linear:
    """The `nn.Linear` named `name`.

    Raises:
        KeyError: the tower has no such linear.
    """
    try:
        linear = tower.get_submodule(name)
    except AttributeError as error:
        raise KeyError(name) from error
    if not isinstance(linear, nn.Linear):
        raise KeyError(name)
    return linear


def _producers(tower: VisionTower, name: str) -> list[torch.Tensor]:
    """Parameters, or slices of them, that produce the linear's input channels."""
    above, _, last = name.rpartition(".")
    if last == "proj":
        qkv = linear_of(tower, f"{above}.qkv")
        values = slice(2 * qkv.in_features, None)
        return [parameter.data[values] for parameter in qkv.parameters()]
    norms = {"qkv": "norm1", "fc1": "norm2"}
    norm: nn.Module = (
        tower.mlp1[0]
        if name == "mlp1.1"
        else tower.get_submodule(f"{above.rpartition('.')[0]}.{norms[last]}")
    )
    return [parameter.data for parameter in norm.parameters()]
