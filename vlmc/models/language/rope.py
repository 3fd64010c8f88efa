"""Rotary position embedding with the family's scaling rules."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vlmc.checkpoint.config import LanguageConfig


class RotaryEmbedding(nn.Module):
    """Cosines and sines for given positions.

    Two rules depend on how long a sequence is: `dynamic` (InternLM2) beyond `max_positions`, and
    `longrope` (Phi-3) beyond the original window. The original takes the longest row of the batch;
    here each row goes by its own length, so that an answer does not depend on its neighbours.
    Keys that are cached already keep the angles they were written with, as in the original.
    """

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.config = config
        self.attention_factor = _attention_factor(config)

    def forward(
        self, positions: Tensor, lengths: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """Angles of `positions` (batch, tokens) int64.

        `lengths`, int64, is (batch,) for the tokens of each row, or (batch, tokens) where every
        token has its own: what the row's length was when that token was its last.

        Returns:
            Cosine and sine, each (batch, 1, tokens, head_dim) in `dtype`, computed in fp32.
        """
        # (batch or 1, tokens or 1, head_dim / 2)
        inverse = self._inverse_frequencies(lengths if lengths.dim() == 2 else lengths[:, None])
        places = positions[:, :, None].float()
        if self.config.rope_scaling.kind == "linear":
            places = places / self.config.rope_scaling.factor
        angles = places * inverse
        angles = torch.cat((angles, angles), dim=-1)[:, None]
        cosine, sine = angles.cos() * self.attention_factor, angles.sin() * self.attention_factor
        return cosine.to(dtype), sine.to(dtype)

    def _inverse_frequencies(self, lengths: Tensor) -> Tensor:
        config, scaling = self.config, self.config.rope_scaling
        dim, device = config.head_dim, lengths.device
        exponents = torch.arange(0, dim, 2, dtype=torch.int64, device=device).float() / dim
        if scaling.kind == "longrope":
            factors = torch.tensor([scaling.short_factor, scaling.long_factor], device=device)
            rows = factors[(lengths > scaling.original_positions).long()]
            return 1.0 / (rows * config.rope_theta**exponents)
        if scaling.kind == "dynamic":
            stretch = scaling.factor * lengths / config.max_positions - (scaling.factor - 1)
            # Python's float keeps the base in double precision, as the original's scalar is.
            bases = config.rope_theta * stretch.double().clamp(min=1.0) ** (dim / (dim - 2))
            return 1.0 / (bases.float()[..., None] ** exponents)
        return (1.0 / (config.rope_theta**exponents))[None, None]


def _attention_factor(config: LanguageConfig) -> float:
    """Phi-3 scales cosines and sines by a constant, whichever factors are in use."""
    scaling = config.rope_scaling
    if scaling.kind != "longrope" or config.max_positions <= scaling.original_positions:
        return 1.0
    ratio = config.max_positions / scaling.original_positions
    return math.sqrt(1 + math.log(ratio) / math.log(scaling.original_positions))


def rotate(states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate `states` (batch, heads, tokens, head_dim), the halves of a head being the pairs."""
    first, second = states.chunk(2, dim=-1)
    return states * cosine + torch.cat((-second, first), dim=-1) * sine
