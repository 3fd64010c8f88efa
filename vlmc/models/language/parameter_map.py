"""Map tensors of the Hugging Face layout to the decoder's fused projections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import cast

import torch
from torch import Tensor, nn

from vlmc.checkpoint.config import LanguageConfig
from vlmc.checkpoint.quantization import Quantization
from vlmc.distributed.shard import Shard
from vlmc.errors import CheckpointError
from vlmc.models.fill import MappedTensor, replace_module
from vlmc.models.language.decoder import Decoder
from vlmc.models.language.parameter_slice import LinearSpec, ParameterSlice
from vlmc.models.linears.quantized import JoinedLinear, QuantizedTensors

_Names = list[tuple[str, tuple[int, ...]]]
_HEAD, _EMBEDDING = "lm_head", "model.embed_tokens.weight"


def build_parameter_map(
    decoder: Decoder,
    config: LanguageConfig,
    quantization: Quantization | None,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[dict[str, ParameterSlice], dict[str, QuantizedTensors]]:
    """Map every linear of the checkpoint to a decoder on the meta device, or to a shard of one.

    `config` has the sizes of the whole.

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

    shard = decoder.group.shard

    def kept(part: LinearSpec) -> int:
        return sum(end - start for start, end in part.rows(shard))

    for path, parts in _packed(config):
        linear = cast(nn.Linear, decoder.get_submodule(path))
        runs = [list(run) for _, run in groupby(parts, lambda part: is_quantized(part.name))]
        modules = _split(linear, [sum(map(kept, run)) for run in runs])
        if len(modules) > 1:
            replace_module(decoder, path, JoinedLinear(modules))
        for index, (run, module) in enumerate(zip(runs, modules, strict=True)):
            own = path if len(modules) == 1 else f"{path}.parts.{index}"
            start = 0
            for part in run:
                slices[part.name] = ParameterSlice(own, start, start + kept(part), part)
                start += kept(part)
            if quantization is not None and is_quantized(run[0].name):
                tensors = QuantizedTensors(module, run[0].name, quantization, dtype, device)
                quantized[own] = tensors
                replace_module(decoder, own, nn.Identity())
    return slices, quantized


def map_tensor(
    name: str, tensor: Tensor, slices: Mapping[str, ParameterSlice], shard: Shard
) -> MappedTensor | None:
    """Map a tensor of the checkpoint, or a shard's part of it, to a parameter.

    Returns:
        None for a tensor that only records a shape, and for embeddings where the shard has none.

    Raises:
        CheckpointError: the tensor reorders inputs (act-order), or has or records the wrong shape.
    """
    linear, _, kind = name.rpartition(".")
    found = slices.get(linear)
    if name == _EMBEDDING and shard.rank > 0:
        return None
    if found is None:
        return MappedTensor(name, tensor, name.removeprefix("model."))
    if kind == "weight_g_idx":
        raise CheckpointError(
            f"tensor {name} reorders the inputs (act-order), which this version does not support"
        )
    if kind == "weight_shape":
        expected = [*found.linear.shape]
        if tensor.tolist() != expected:
            raise CheckpointError(f"tensor {name} is {tensor.tolist()}; the model needs {expected}")
        return None
    part = found.linear.cut(kind, name, tensor, shard)
    return MappedTensor(name, part, f"{found.path}.{kind}", found.start, found.stop)


def _packed(config: LanguageConfig) -> Iterator[tuple[str, list[LinearSpec]]]:
    """Every linear of the decoder, with the checkpoint linears in it."""
    query, value = config.heads * config.head_dim, config.kv_heads * config.head_dim
    hidden, inner = config.hidden_size, config.intermediate_size
    qkv: _Names = [("q_proj", (query,)), ("k_proj", (value,)), ("v_proj", (value,))]
    gate_up: _Names = [("gate_proj", (inner,)), ("up_proj", (inner,))]
    if config.architecture == "Phi3ForCausalLM":
        qkv = [("qkv_proj", (query, value, value))]
        gate_up = [("gate_up_proj", (inner, inner))]
    for index in range(config.layers):
        attention, mlp = f"layers.{index}.self_attn.", f"layers.{index}.mlp."
        for path, names in ((f"{attention}qkv_proj", qkv), (f"{mlp}gate_up_proj", gate_up)):
            above = path.rpartition(".")[0]
            yield path, [LinearSpec(f"model.{above}.{name}", rows, hidden) for name, rows in names]
        for path, inputs in ((f"{attention}o_proj", query), (f"{mlp}down_proj", inner)):
            yield path, [LinearSpec(f"model.{path}", (hidden,), inputs, cuts_inputs=True)]
    yield _HEAD, [LinearSpec(_HEAD, (config.vocab_size,), hidden)]


def _split(linear: nn.Linear, outputs: list[int]) -> list[nn.Linear]:
    """Split a linear by `outputs`, on the meta device; a single part is the linear itself."""
    if len(outputs) == 1:
        return [linear]
    bias = linear.bias is not None
    return [nn.Linear(linear.in_features, rows, bias=bias, device="meta") for rows in outputs]
