"""What was measured of a tower: the ranges of its layers, and what follows for their precision.

AotiEnvironment no calibration code, since engines are rebuilt and loaded from `ranges.json` too.
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
    """A linear's input after `migrate`, and what of it 8 bits represent.

    An activation's scale is `clip` / 127 (int8) or `clip` / 448 (fp8), symmetric and per tensor;
    `clip` is None where the layer is not measured for 8 bits. `output` is the largest magnitude
    of what it gives, layer scale and bias included.
    """

    minimum: float
    maximum: float
    clip: float | None
    output: float


@dataclass(frozen=True, slots=True)
class Ranges:
    """Linears are named as in `VisionTower`, such as `vision_model.encoder.layers.0.attn.qkv`."""

    linears: Mapping[str, LinearRange]
    residual: tuple[float, ...]  # largest magnitude of the residual stream in each block
    keep_16bit: tuple[str, ...]  # linears that int8 and fp8 leave in 16 bits
    keep_fp32: tuple[str, ...]  # linears, and blocks whose residual stream, fp16 cannot hold
    migration: Mapping[str, tuple[float, ...]]  # linear → powers of two that its inputs are
    # divided by, and its weight's columns multiplied


def write_ranges(ranges: Ranges, path: Path) -> None:
    """Write `ranges.json`, the same bytes for the same values."""
    values = {"schema": SCHEMA, **asdict(ranges)}
    path.write_text(json.dumps(values, sort_keys=True, separators=(",", ":")) + "\n")


def read_ranges(path: Path) -> Ranges:
    """Read `ranges.json`.

    Raises:
        IntegrityError: it is not what `write_ranges` writes.
    """
    try:
        values: dict[str, Any] = json.loads(path.read_bytes())
        if values.pop("schema") != SCHEMA:
            raise ValueError("it has another schema")
        linears = {name: LinearRange(**part) for name, part in values.pop("linears").items()}
        migration = {name: tuple(part) for name, part in values.pop("migration").items()}
        lists = {name: tuple(part) for name, part in values.items()}
        return Ranges(linears=linears, migration=migration, **lists)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise IntegrityError(
            f"{path} is no file of ranges ({error!r}); build the artifact again"
        ) from error


@torch.no_grad()
def migrate(tower: VisionTower, ranges: Ranges) -> None:
    """Divide the inputs of linears by their factors and multiply the weights, in place.

    The division is folded into the norm before the linear, or for `attn.proj` into the rows of
    the values in `attn.qkv`, since attention mixes tokens and never channels. The factors are
    powers of two, so the tower computes the same to the bit.
    """
    for name, factors in ranges.migration.items():
        weight = linear_of(tower, name).weight
        divide = torch.tensor(factors, dtype=weight.dtype, device=weight.device)
        weight.mul_(divide)
        for parameter in _producers(tower, name):
            parameter.div_(divide if parameter.ndim == 1 else divide[:, None])


def linear_of(tower: nn.Module, name: str) -> nn.Linear:
    """The linear of that name.

    Raises:
        KeyError: there is none.
    """
    try:
        linear = tower.get_submodule(name)
    except AttributeError as error:
        raise KeyError(name) from error
    if not isinstance(linear, nn.Linear):
        raise KeyError(name)
    return linear


def _producers(tower: VisionTower, name: str) -> list[torch.Tensor]:
    """The parameters, or rows of them, whose outputs are the linear's input channels."""
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
