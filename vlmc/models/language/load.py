"""Load the decoder from tensors in Hugging Face's layout."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from vlmc.checkpoint.config import LanguageConfig
from vlmc.checkpoint.quantization import Quantization
from vlmc.errors import CheckpointError
from vlmc.models.fill import fill_parameters
from vlmc.models.language.decoder import Decoder
from vlmc.models.language.parameter_map import arrange, place


def load_decoder(
    config: LanguageConfig,
    tensors: Iterable[tuple[str, Tensor]],
    *,
    dtype: torch.dtype,
    device: torch.device | str,
    quantization: Quantization | None = None,
) -> Decoder:
    """The language model from tensors in Hugging Face's layout, in `dtype` on `device`.

    Args:
        quantization: which linears come as compressed-tensors stores them, and how; each is made
            ready for the device as soon as its tensors are there. On the CPU that is a dense
            weight in `dtype`.

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
    fill_parameters(decoder, found, dtype, target, quantized)
    return decoder.eval()
