"""RMSNorm as InternVL2's vision towers and decoders compute it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """RMSNorm that computes in fp32 and casts back *before* multiplying by the weight."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, states: Tensor) -> Tensor:
        """Normalize the last dimension; keeps shape and dtype."""
        fp32 = states.float()
        fp32 = fp32 * torch.rsqrt(fp32.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * fp32.to(states.dtype)
