"""Language models that tests compare, and random sequences for them."""

from __future__ import annotations

import torch
from torch import Tensor

from vlmc.models.language.decoder import Decoder

TOLERANCE = 1e-4
NAMES = ("internlm2-300m", "qwen2-300m", "phi3-300m", "llama-llama3-6b", "internlm2-300m-ntk")
# In these two, positions beyond 512 rotate by other angles.
WINDOWED = ("phi3-300m", "internlm2-300m-ntk")


def sequence(decoder: Decoder, tokens: int, seed: int = 0) -> Tensor:
    """Random embeddings (tokens, hidden)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tokens, decoder.config.hidden_size, generator=generator)
