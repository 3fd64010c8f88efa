"""Fill a model's parameters from named tensors, one at a time, never holding two copies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from vlmc.errors import CheckpointError
from vlmc.models.linears.quantized import QuantizedTensors, check_shape


@dataclass(frozen=True, slots=True)
class Placed:
    """A tensor and the outputs of a parameter that it fills; `stop` None is all of them."""

    source: str
    tensor: Tensor
    parameter: str
    start: int = 0
    stop: int | None = None


@runtime_checkable
class Padded(Protocol):
    """A module that allocates its own weight, because the weight is part of a larger table."""

    def allocate(self, dtype: torch.dtype, device: torch.device) -> nn.Parameter:
        """Memory for the weight; the rows that only pad are zero."""


@torch.no_grad()
def fill_parameters(
    model: nn.Module,
    tensors: Iterable[Placed],
    dtype: torch.dtype,
    device: torch.device | str,
    quantized: Mapping[str, QuantizedTensors] = MappingProxyType({}),
) -> None:
    """Replace the meta parameters of a model by memory, each when the first tensor for it is there
    and has its shape: a configuration alone, which can say anything, takes none.

    A quantized linear becomes a module when all its tensors are there.
    """
    parameters = dict(model.named_parameters())
    unfilled = {name: parameter.shape[0] for name, parameter in parameters.items()}
    unfilled |= {path: len(held.layouts) * held.outputs for path, held in quantized.items()}
    filled: set[tuple[str, int]] = set()
    for placed in tensors:
        path, _, kind = placed.parameter.rpartition(".")
        held = quantized.get(path)
        if placed.parameter not in parameters and (held is None or kind not in held.layouts):
            raise CheckpointError(f"tensor {placed.source} has no place in this model")
        if (placed.parameter, placed.start) in filled:
            raise CheckpointError(f"the weights hold tensor {placed.source} twice")
        filled.add((placed.parameter, placed.start))
        if held is not None:
            unfilled[path] -= held.fill(
                kind, placed.start, placed.stop, placed.tensor, placed.source
            )
            if unfilled[path] == 0:
                replace_module(model, path, held.make())
            continue
        target = parameters[placed.parameter][placed.start : placed.stop]
        if target.is_floating_point() != placed.tensor.is_floating_point():
            raise CheckpointError(
                f"tensor {placed.source} is {placed.tensor.dtype}, the model's is {target.dtype}"
            )
        check_shape(placed.source, placed.tensor, target.shape)
        if target.is_meta:
            parameters[placed.parameter] = _allocate(model, placed.parameter, dtype, device)
            target = parameters[placed.parameter][placed.start : placed.stop]
        target.copy_(placed.tensor)
        unfilled[placed.parameter] -= target.shape[0]
    lacking = sorted(name for name, rows in unfilled.items() if rows != 0)
    if lacking:
        raise CheckpointError(
            f"{len(lacking)} of the model's {len(unfilled)} parameters have no tensor in the "
            f"weights or only a part of them, first {lacking[0]}"
        )


def _allocate(
    model: nn.Module, name: str, dtype: torch.dtype, device: torch.device | str
) -> nn.Parameter:
    """Memory yet to be filled in place of a meta parameter.

    `Module.to_empty` does the same, but imports torch's compiler for it: half a second.
    """
    above, _, last = name.rpartition(".")
    module = model.get_submodule(above)
    if isinstance(module, Padded):
        return module.allocate(dtype, torch.device(device))
    memory = torch.empty(model.get_parameter(name).shape, dtype=dtype, device=device)
    parameter = nn.Parameter(memory, requires_grad=False)
    setattr(module, last, parameter)
    return parameter


def replace_module(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module in the place of another."""
    above, _, last = path.rpartition(".")
    parent = model.get_submodule(above)
    if isinstance(parent, nn.ModuleList):
        parent[int(last)] = module
    else:
        setattr(parent, last, module)
