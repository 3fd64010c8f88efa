"""Fill a model's parameters from named tensors, one at a time, never holding two copies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from vlmc.checkpoint.config import LanguageConfig
from vlmc.checkpoint.quantization import Quantization
from vlmc.errors import CheckpointError
from vlmc.models.decoder import Decoder, TokenHead
from vlmc.models.linear import QuantizedTensors, check_shape
from vlmc.models.placement import Placed, arrange, place, replace
from vlmc.models.vision import TowerConfig, VisionTower


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
    _fill(tower, (Placed(name, tensor, name) for name, tensor in tensors), dtype, device)
    return tower.eval()


def load_decoder(
    config: LanguageConfig,
    tensors: Iterable[tuple[str, Tensor]],
    *,
    dtype: torch.dtype,
    device: torch.device | str,
    quantization: Quantization | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Decoder:
    """The language model from tensors in Hugging Face's layout, in `dtype` on `device`.

    Args:
        quantization: which linears come as compressed-tensors stores them, and how; each is made
            ready for the device as soon as its tensors are there. On the CPU that is a dense
            weight in `dtype`.
        tell: called with a line on what takes long.

    Raises:
        CheckpointError: a tensor is missing, unknown, doubled, of another shape, or not finite.
        HardwareError: the device cannot run the layout.
    """
    if quantization is not None and quantization.layout not in ("w4a16", "fp8"):
        raise CheckpointError(
            f"weights in the layout {quantization.layout} are converted when an artifact is built; "
            "they cannot be loaded as they are"
        )
    with torch.device("meta"):
        decoder = Decoder(config)
    target = torch.device(device)
    places, quantized = arrange(decoder, config, quantization, dtype, target)
    placed = (place(name, tensor, places) for name, tensor in tensors)
    found = (entry for entry in placed if entry is not None)
    _fill(decoder, found, dtype, target, quantized, tell)
    return decoder.eval()


@torch.no_grad()
def _fill(
    model: nn.Module,
    tensors: Iterable[Placed],
    dtype: torch.dtype,
    device: torch.device | str,
    quantized: Mapping[str, QuantizedTensors] = MappingProxyType({}),
    tell: Callable[[str], None] = lambda _: None,
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
                replace(model, path, held.make(tell))
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
    if isinstance(module, TokenHead):
        return module.allocate(dtype, torch.device(device))
    memory = torch.empty(model.get_parameter(name).shape, dtype=dtype, device=device)
    parameter = nn.Parameter(memory, requires_grad=False)
    setattr(module, last, parameter)
    return parameter
