"""Full fp32 precision on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def disable_tf32() -> Iterator[None]:
    """Keep cuDNN from using TF32, which has a 10-bit mantissa, for the patch embedding."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield
