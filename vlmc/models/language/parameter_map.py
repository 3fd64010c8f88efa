"""Map tensors of the Hugging Face layout to the decoder's fused projections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import cast

import torch
from torch import Tensor, nn

from vlmc.checkpoint.config import LanguageConfig
from vlmc.checkpoint.quantization import Quantization
from vlmc.errors import CheckpointError
from vlmc.models.fill import MappedTensor, replace_module
from vlmc.models.language.decoder import Decoder
from vlmc.models.linears.quantized import JoinedLinear, QuantizedTensors

_HEAD = "lm_head"


@dataclass(frozen=True, slots=True)
class ParameterSlice:
    """The outputs `start` to `stop` of the module at `path`, which one checkpoint linear fills."""

    path: str
    start: int
    stop: int
    inputs: int


def build_parameter_map(
    decoder: Decoder,
    config: LanguageConfig,
    quantization: Quantization | None,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[dict[str, ParameterSlice], dict[str, QuantizedTensors]]:
    """Map every linear of the checkpoint to a decoder on the meta device.

    A fused projection whose parts are partly dense and partly quantized is split into a
    `JoinedLinear`. Quantized linears are replaced by placeholders until their tensors are loaded.

    Returns:
        The slice that each checkpoint linear fills, by its name, and the quantized linears to
        load, by module path.

    Raises:
        CheckpointError: the group size does not divide a quantized linear.
    """
    slices: dict[str, ParameterSlice] = {}
    quantized: dict[str, QuantizedTensors] = {}

    def is_quantized(name: str) -> bool:
        return quantization is not None and quantization.covers(name)

    for path, parts in _packed(config):
        linear = cast(nn.Linear, decoder.get_submodule(path))
        runs = [list(run) for _, run in groupby(parts, lambda part: is_quantized(part[0]))]
        modules = _split(linear, [sum(rows for _, rows in run) for run in runs])
        if len(modules) > 1:
            replace_module(decoder, path, JoinedLinear(modules))
        for index, (run, module) in enumerate(zip(runs, modules, strict=True)):
            own = path if len(modules) == 1 else f"{path}.parts.{index}"
            start = 0
            for name, rows in run:
                slices[name] = ParameterSlice(own, start, start + rows, linear.in_features)
                start += rows
            if quantization is not None and is_quantized(run[0][0]):
                tensors = QuantizedTensors(module, run[0][0], quantization, dtype, device)
                quantized[own] = tensors
                replace_module(decoder, own, nn.Identity())
    return slices, quantized


def map_tensor(
    name: str, tensor: Tensor, slices: Mapping[str, ParameterSlice]
) -> MappedTensor | None:
    """Map a tensor of the checkpoint to a parameter, or to None if it only records a shape.

    Raises:
        CheckpointError: the tensor reorders inputs (act-order), or records the wrong shape.
    """
    linear, _, kind = name.rpartition(".")
    found = slices.get(linear)
    if found is None:
        return MappedTensor(name, tensor, name.removeprefix("model."))
    if kind == "weight_g_idx":
        raise CheckpointError(
            f"tensor {name} reorders the inputs (act-order), which this version does not support"
        )
    if kind == "weight_shape":
        expected = [found.stop - found.start, found.inputs]
        if tensor.tolist() != expected:
            raise CheckpointError(f"tensor {name} is {tensor.tolist()}; the model needs {expected}")
        return None
    return MappedTensor(name, tensor, f"{found.path}.{kind}", found.start, found.stop)


def _packed(config: LanguageConfig) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """Every linear of the decoder, with names and outputs of the checkpoint linears in it."""
    query, value = config.heads * config.head_dim, config.kv_heads * config.head_dim
    hidden, inner = config.hidden_size, config.intermediate_size
    qkv = [("q_proj", query), ("k_proj", value), ("v_proj", value)]
    gate_up = [("gate_proj", inner), ("up_proj", inner)]
    if config.architecture == "Phi3ForCausalLM":
        qkv = [("qkv_proj", query + 2 * value)]
        gate_up = [("gate_up_proj", 2 * inner)]
    for index in range(config.layers):
        for part, whole, names in (
            ("self_attn", "qkv_proj", qkv),
            ("self_attn", "o_proj", [("o_proj", hidden)]),
            ("mlp", "gate_up_proj", gate_up),
            ("mlp", "down_proj", [("down_proj", hidden)]),
        ):
            layer = f"layers.{index}.{part}."
            yield layer + whole, [(f"model.{layer}{name}", rows) for name, rows in names]
    yield _HEAD, [(_HEAD, config.vocab_size)]


def _split(linear: nn.Linear, outputs: list[int]) -> list[nn.Linear]:
    """Split a linear by `outputs`, on the meta device; a single part is the linear itself."""
    if len(outputs) == 1:
        return [linear]
    bias = linear.bias is not None
    return [nn.Linear(linear.in_features, rows, bias=bias, device="meta") for rows in outputs]
