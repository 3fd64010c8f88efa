"""NaN and infinity in weights, found at about the speed of memory."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from vlmc.errors import CheckpointError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# By name of the dtype: its bits as signed and unsigned integers, and the first bits that are not
# finite without the sign. E4M3 has no infinity.
_PATTERNS: dict[str, tuple[type[np.signedinteger], type[np.unsignedinteger], int]] = {
    "torch.float32": (np.int32, np.uint32, 0x7F800000),
    "torch.bfloat16": (np.int16, np.uint16, 0x7F80),
    "torch.float16": (np.int16, np.uint16, 0x7C00),
    "torch.float8_e4m3fn": (np.int8, np.uint8, 0x7F),
}
# Small enough for a core's cache, where the second of the two passes finds it.
_CHUNK_BYTES = 1 << 19
# A thread costs as much to start as 1 MB to look at; memory is used up by a few.
_THREAD_BYTES = 1 << 23
_MAX_THREADS = 8


def is_finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite; integers never are.

    NaN and infinity have the largest bit patterns. On a CPU, a maximum over the bits as signed
    integers finds positive ones, over the bits as unsigned integers negative ones. Neither needs a
    temporary.
    """
    pattern = _PATTERNS.get(str(tensor.dtype))
    if pattern is None:
        return True
    if tensor.is_cuda:
        return _is_finite_on_gpu(tensor)
    signed, unsigned, first = pattern
    sign = 1 << (8 * np.dtype(signed).itemsize - 1)
    values = _bytes(tensor).view(signed)
    step = _CHUNK_BYTES // values.itemsize

    def are_finite(begin: int, end: int) -> bool:
        for start in range(begin, end, step):
            chunk = values[start : min(start + step, end)]
            if chunk.max() >= first or chunk.view(unsigned).max() >= sign + first:
                return False
        return True

    threads = min(_MAX_THREADS, len(os.sched_getaffinity(0)), values.nbytes // _THREAD_BYTES)
    if threads < 2:
        return are_finite(0, len(values))
    bounds = [len(values) * part // threads for part in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:  # numpy releases the interpreter's lock
        return all(pool.map(are_finite, bounds, bounds[1:]))


def _is_finite_on_gpu(tensor: Tensor) -> bool:
    import torch

    if tensor.dtype == torch.float8_e4m3fn:  # which torch's own test does not take
        return not bool((tensor.view(torch.uint8) & 0x7F == 0x7F).any())
    return bool(tensor.isfinite().all())


def to_dtype(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A finite tensor in `dtype`, contiguous.

    Raises:
        CheckpointError: a value is beyond fp16's largest; `name` is the tensor's.
    """
    found = tensor.to(dtype).contiguous()
    if str(dtype) == "torch.float16" and tensor.dtype != dtype and not is_finite(found):
        raise CheckpointError(
            f"tensor {name} has a value of {float(tensor.abs().max()):g}, and fp16 ends at 65,504. "
            "Set model.dtype to bf16, which has fp32's range."
        )
    return found


def _bytes(tensor: Tensor) -> np.ndarray[tuple[int], np.dtype[np.int8]]:
    import torch

    flat = tensor.detach().contiguous().view(-1)
    return flat.view(torch.int8).numpy() if flat.numel() else np.empty(0, np.int8)
