"""Fill a model's parameters from named tensors, without a second copy of the model in memory."""

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
class MappedTensor:
    """A tensor and the rows of a parameter that it fills, to the last row if `stop` is None."""

    source: str
    tensor: Tensor
    parameter: str
    start: int = 0
    stop: int | None = None


@runtime_checkable
class Padded(Protocol):
    """A module that allocates its own weight as part of a larger, padded tensor."""

    def allocate(self, dtype: torch.dtype, device: torch.device) -> nn.Parameter:
        """Allocate the weight, with zeros in the padding rows."""


@torch.no_grad()
def fill_parameters(
    model: nn.Module,
    tensors: Iterable[MappedTensor],
    dtype: torch.dtype,
    device: torch.device | str,
    quantized: Mapping[str, QuantizedTensors] = MappingProxyType({}),
) -> None:
    """Replace the meta parameters of a model by the given tensors.

    A parameter is allocated when its first tensor arrives with the right shape, so a wrong
    configuration alone allocates nothing. A quantized linear is created when its last tensor
    arrives.

    Args:
        model: a model on the meta device.
        tensors: tensors and the parameters that they fill.
        dtype: dtype of the parameters.
        device: device of the parameters.
        quantized: the quantized linears, by module path.

    Raises:
        CheckpointError: a tensor is missing, unknown, duplicated, or has the wrong shape or dtype.
        HardwareError: the device cannot run a quantized linear.
    """
    parameters = dict(model.named_parameters())
    unfilled = {name: parameter.shape[0] for name, parameter in parameters.items()}
    unfilled |= {path: len(held.layouts) * held.outputs for path, held in quantized.items()}
    filled: set[tuple[str, int]] = set()
    for placed in tensors:
        path, _, kind = placed.parameter.rpartition(".")
        held = quantized.get(path)
        if placed.parameter not in parameters and (held is None or kind not in held.layouts):
            raise CheckpointError(f"the model has no parameter for tensor {placed.source}")
        if (placed.parameter, placed.start) in filled:
            raise CheckpointError(f"the weights contain tensor {placed.source} twice")
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
                f"tensor {placed.source} is {placed.tensor.dtype}; the model needs {target.dtype}"
            )
        check_shape(placed.source, placed.tensor, target.shape)
        if target.is_meta:
            parameters[placed.parameter] = _allocate(model, placed.parameter, dtype, device)
            target = parameters[placed.parameter][placed.start : placed.stop]
        target.copy_(placed.tensor)
        unfilled[placed.parameter] -= target.shape[0]
    missing = sorted(name for name, rows in unfilled.items() if rows != 0)
    if missing:
        raise CheckpointError(
            f"the weights lack {len(missing)} of the model's {len(unfilled)} parameters, in whole "
            f"or in part, first {missing[0]}"
        )


def _allocate(
    model: nn.Module, name: str, dtype: torch.dtype, device: torch.device | str
) -> nn.Parameter:
    """Replace a meta parameter by uninitialized memory.

    `Module.to_empty` does the same, but imports torch's compiler, which takes 0.5 s.
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
    """Replace the submodule at `path`."""
    above, _, last = path.rpartition(".")
    parent = model.get_submodule(above)
    if isinstance(parent, nn.ModuleList):
        parent[int(last)] = module
    else:
        setattr(parent, last, module)
