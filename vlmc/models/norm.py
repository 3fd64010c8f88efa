"""Root-mean-square normalization as InternVL2's parts compute it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """Normalizes in fp32 and casts back *before* the weight, as both towers and decoders do."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, states: Tensor) -> Tensor:
        """Normalize the last dimension; shape and dtype stay."""
        fp32 = states.float()
        fp32 = fp32 * torch.rsqrt(fp32.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * fp32.to(states.dtype)
