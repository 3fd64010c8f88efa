"""Fill a model's parameters from named tensors, one at a time, never holding two copies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlmc.checkpoint.config import LanguageConfig, ModelConfig
from vlmc.errors import CheckpointError
from vlmc.models.decoder import Decoder
from vlmc.models.vision import VisionTower


@dataclass(frozen=True, slots=True)
class _Placed:
    """A tensor and the rows of a parameter that it fills; `stop` None is all of them."""

    source: str
    tensor: Tensor
    parameter: str
    start: int = 0
    stop: int | None = None


def load_tower(
    config: ModelConfig,
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
    _fill(tower, (_Placed(name, tensor, name) for name, tensor in tensors), dtype, device)
    return tower.eval()


def load_decoder(
    config: LanguageConfig,
    tensors: Iterable[tuple[str, Tensor]],
    *,
    dtype: torch.dtype,
    device: torch.device | str,
) -> Decoder:
    """The language model from tensors in Hugging Face's layout, in `dtype` on `device`.

    Raises:
        CheckpointError: a tensor is missing, unknown, doubled or of another shape.
    """
    with torch.device("meta"):
        decoder = Decoder(config)
    _fill(decoder, _place(config, tensors), dtype, device)
    return decoder.eval()


def _place(config: LanguageConfig, tensors: Iterable[tuple[str, Tensor]]) -> Iterator[_Placed]:
    query, value = config.heads * config.head_dim, config.kv_heads * config.head_dim
    inner = config.intermediate_size
    parts = {
        "self_attn.q_proj": ("self_attn.qkv_proj", 0, query),
        "self_attn.k_proj": ("self_attn.qkv_proj", query, query + value),
        "self_attn.v_proj": ("self_attn.qkv_proj", query + value, query + 2 * value),
        "mlp.gate_proj": ("mlp.gate_up_proj", 0, inner),
        "mlp.up_proj": ("mlp.gate_up_proj", inner, 2 * inner),
    }
    for name, tensor in tensors:
        parameter, start, stop = name.removeprefix("model."), 0, None
        for part, (whole, first, last) in parts.items():
            if f".{part}." in name:
                parameter, start, stop = parameter.replace(part, whole), first, last
        yield _Placed(name, tensor, parameter, start, stop)


@torch.no_grad()
def _fill(
    model: nn.Module,
    tensors: Iterable[_Placed],
    dtype: torch.dtype,
    device: torch.device | str,
) -> None:
    """Replace the meta parameters of a model by memory, each when the first tensor for it is there
    and has its shape: a configuration alone, which can say anything, takes none.
    """
    parameters = dict(model.named_parameters())
    unfilled = {name: parameter.shape[0] for name, parameter in parameters.items()}
    filled: set[tuple[str, int]] = set()
    for placed in tensors:
        if placed.parameter not in parameters:
            raise CheckpointError(f"tensor {placed.source} has no place in this model")
        target = parameters[placed.parameter][placed.start : placed.stop]
        if target.is_floating_point() != placed.tensor.is_floating_point():
            raise CheckpointError(
                f"tensor {placed.source} is {placed.tensor.dtype}, the model's is {target.dtype}"
            )
        if target.shape != placed.tensor.shape:
            raise CheckpointError(
                f"tensor {placed.source} has shape {list(placed.tensor.shape)}, the model's "
                f"configuration asks for {list(target.shape)}"
            )
        if (placed.parameter, placed.start) in filled:
            raise CheckpointError(f"the weights hold tensor {placed.source} twice")
        filled.add((placed.parameter, placed.start))
        if target.is_meta:
            parameters[placed.parameter] = _allocate(model, placed.parameter, dtype, device)
            target = parameters[placed.parameter][placed.start : placed.stop]
        target.copy_(placed.tensor)
        unfilled[placed.parameter] -= target.shape[0]
    lacking = sorted(name for name, rows in unfilled.items() if rows != 0)
    if lacking:
        raise CheckpointError(
            f"{len(lacking)} of the model's {len(parameters)} parameters have no tensor in the "
            f"weights or only a part of them, first {lacking[0]}"
        )


def _allocate(
    model: nn.Module, name: str, dtype: torch.dtype, device: torch.device | str
) -> nn.Parameter:
    """Memory yet to be filled in place of a meta parameter.

    `Module.to_empty` does the same, but imports torch's compiler for it: half a second.
    """
    above, _, last = name.rpartition(".")
    memory = torch.empty(model.get_parameter(name).shape, dtype=dtype, device=device)
    parameter = nn.Parameter(memory, requires_grad=False)
    setattr(model.get_submodule(above), last, parameter)
    return parameter
