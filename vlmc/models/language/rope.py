"""Rotary position embedding with the family's rope scaling."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlmc.checkpoint.config import LanguageConfig
from vlmc.checkpoint.rope_config import attention_factor


class RotaryEmbedding(nn.Module):
    """Cosines and sines of positions.

    Two kinds of scaling depend on the sequence length: `dynamic` (InternLM2) beyond
    `max_positions`, and `longrope` (Phi-3) beyond the original window. The original uses the
    longest row of the batch. Here each row uses its own length, so an answer does not depend on
    the rest of the batch. Cached keys keep their angles, as in the original.
    """

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.config = config
        scaling = config.rope_scaling
        self.attention_factor = (
            attention_factor(config.max_positions, scaling.original_positions)
            if scaling.kind == "longrope"
            else 1.0
        )
        self._both: Tensor | None = None

    def forward(
        self, positions: Tensor, lengths: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """Compute the rotation of each position.

        Args:
            positions: (batch, tokens) int64.
            lengths: int64 sequence lengths, (batch,), or (batch, tokens) for a length per token.
            dtype: dtype of the result.

        Returns:
            Cosine and sine, each (batch, 1, tokens, head_dim) in `dtype`, computed in fp32.
        """
        # (batch or 1, tokens or 1, head_dim / 2)
        inverse = self._inverse_frequencies(lengths if lengths.dim() == 2 else lengths[:, None])
        steps = positions[:, :, None].float()
        if self.config.rope_scaling.kind == "linear":
            steps = steps / self.config.rope_scaling.factor
        angles = steps * inverse
        angles = torch.cat((angles, angles), dim=-1)[:, None]
        cosine, sine = angles.cos() * self.attention_factor, angles.sin() * self.attention_factor
        return cosine.to(dtype), sine.to(dtype)

    def _factors(self, device: torch.device) -> Tensor:
        """Short and long factors (2, head_dim / 2), made once: a CUDA graph cannot hold the copy
        from the host."""
        if self._both is None or self._both.device != device:
            scaling = self.config.rope_scaling
            factors = [scaling.short_factor, scaling.long_factor]
            self._both = torch.tensor(factors, dtype=torch.float32, device=device)
        return self._both

    def _inverse_frequencies(self, lengths: Tensor) -> Tensor:
        config, scaling = self.config, self.config.rope_scaling
        dim, device = config.head_dim, lengths.device
        exponents = torch.arange(0, dim, 2, dtype=torch.int64, device=device).float() / dim
        if scaling.kind == "longrope":
            rows = self._factors(device)[(lengths > scaling.original_positions).long()]
            return 1.0 / (rows * config.rope_theta**exponents)
        if scaling.kind == "dynamic":
            stretch = scaling.factor * lengths / config.max_positions - (scaling.factor - 1)
            # Double precision, as in the original, where the base is a Python float.
            bases = config.rope_theta * stretch.double().clamp(min=1.0) ** (dim / (dim - 2))
            return 1.0 / (bases.float()[..., None] ** exponents)
        return (1.0 / (config.rope_theta**exponents))[None, None]


def rotate(states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate `states` (batch, heads, tokens, head_dim), pairing the two halves of each head."""
    first, second = states.chunk(2, dim=-1)
    return states * cosine + torch.cat((-second, first), dim=-1) * sine
