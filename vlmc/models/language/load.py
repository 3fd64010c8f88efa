"""Load the decoder from tensors in the Hugging Face layout."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from vlmc.checkpoint.config import LanguageConfig
from vlmc.checkpoint.quantization import Quantization
from vlmc.distributed.group import ALONE, Group
from vlmc.errors import CheckpointError
from vlmc.models.fill import fill_parameters
from vlmc.models.language.decoder import Decoder, ReceivedEmbedding
from vlmc.models.language.parameter_map import build_parameter_map, map_tensor


def load_decoder(
    config: LanguageConfig,
    tensors: Iterable[tuple[str, Tensor]],
    *,
    dtype: torch.dtype,
    device: torch.device | str,
    quantization: Quantization | None = None,
    tokens: int | None = None,
    group: Group = ALONE,
) -> Decoder:
    """The language model in `dtype` on `device`, in eval mode.

    Args:
        config: configuration of the language model.
        tensors: tensors by name, in the Hugging Face layout.
        dtype: compute dtype.
        device: where to load the model.
        quantization: the linears that are stored in the compressed-tensors layout, and their
            scheme. On the CPU they are dequantized to `dtype`.
        tokens: size of the tokenizer's vocabulary; larger ids are never chosen. None is the model's
            whole vocabulary.
        group: the processes that share the model; this one keeps its shard of each tensor.

    Raises:
        CheckpointError: a tensor is missing, unknown, duplicated, not finite, or has the wrong
            shape.
        HardwareError: the device cannot run the quantization scheme.
    """
    if quantization is not None and quantization.layout not in ("w4a16", "fp8"):
        raise CheckpointError(
            f"weights in the layout {quantization.layout} cannot be loaded directly; `vlmc build` "
            "converts them"
        )
    with torch.device("meta"):
        decoder = Decoder(config, group)
    target = torch.device(device)
    decoder.tokens = config.vocab_size if tokens is None else tokens
    if isinstance(decoder.embed_tokens, ReceivedEmbedding):
        decoder.embed_tokens.weight = torch.empty(0, config.hidden_size, dtype=dtype, device=target)
    slices, quantized = build_parameter_map(decoder, config, quantization, dtype, target)
    mapped = (map_tensor(name, tensor, slices, group.shard) for name, tensor in tensors)
    found = (entry for entry in mapped if entry is not None)
    fill_parameters(decoder, found, dtype, target, quantized)
    return decoder.eval()
