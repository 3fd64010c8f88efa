"""fp32 as fp32 on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def disable_tf32() -> Iterator[None]:
    """While entered, cuDNN does not take TF32 for the patch embedding: ten bits of mantissa."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield
