"""Memory between two models."""

from __future__ import annotations

import gc

import torch


def free_memory(device: torch.device) -> None:
    """Give back what closed models held: graphs and caches go when the collector finds them."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
