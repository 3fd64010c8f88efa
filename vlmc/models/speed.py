"""From how many rows on it is quicker to dequantize a weight and multiply by cuBLAS.

Measured once for a shape, a kernel and a GPU, and kept in the user's cache folder.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from vlmc.machine.user_cache import read_private, user_cache, write_private

if TYPE_CHECKING:
    from torch import Tensor

    from vlmc.models.w4a16 import Kernel

SIZES = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
NEVER = 1 << 30
_REPEATS = 7
_CACHE_BYTES, _FILLS = 1 << 28, 6
_decided: dict[tuple[Path, str], int] = {}


def rows_from(kernel: Kernel) -> int:
    """Rows from which on the weight is dequantized; NEVER where the kernel is always quicker."""
    if kernel.max_rows == 0:
        return 0
    path = _path()
    key = _key(kernel)
    if (path, key) not in _decided:
        kept = _read(path)
        if key not in kept:
            kept[key] = measure(kernel)
            _write(path, kept)
        _decided[path, key] = kept[key]
    return min(_decided[path, key], kernel.max_rows + 1)


def measure(kernel: Kernel) -> int:
    """The smallest of SIZES from which on cuBLAS is quicker, dequantization included."""
    inputs = kernel.shape[1]
    border = NEVER
    device = torch.device("cuda", torch.cuda.current_device())
    for size in reversed(SIZES):
        rows = torch.randn(size, inputs, dtype=kernel.dtype, device=device)

        def dequantized(rows: Tensor = rows) -> Tensor:
            return functional.linear(rows, kernel.dequantize())

        def multiplied(rows: Tensor = rows) -> Tensor:
            return kernel.multiply(rows)

        if size <= kernel.max_rows and milliseconds(multiplied) <= milliseconds(dequantized):
            break
        border = size
    return border


def milliseconds(work: Callable[[], object]) -> float:
    """Median time of `work` on the GPU, after two runs that are not counted."""
    event: Any = torch.cuda.Event
    # Overwritten before each run, so that weights come from memory as in a whole model.
    cache = torch.empty(_CACHE_BYTES, dtype=torch.uint8, device="cuda")
    times: list[float] = []
    for repeat in range(_REPEATS + 2):
        start, end = event(enable_timing=True), event(enable_timing=True)
        # Long enough for the host to queue the work meanwhile, whose pauses would count else.
        for _ in range(_FILLS):
            cache.zero_()
        start.record()
        work()
        end.record()
        end.synchronize()
        if repeat >= 2:
            times.append(start.elapsed_time(end))
    return statistics.median(times)


def _key(kernel: Kernel) -> str:
    outputs, inputs = kernel.shape
    kind = "symmetric" if kernel.symmetric else "asymmetric"
    device = torch.cuda.get_device_name()
    return (
        f"{device} | torch {torch.__version__} | {kernel.name} | {outputs}x{inputs} | "
        f"group {kernel.group_size} {kind} | {kernel.dtype}"
    )


def _path() -> Path:
    return user_cache("kernels") / "w4a16-rows.json"


def _read(path: Path) -> dict[str, int]:
    """What is kept; nothing of a file that is not the user's or was damaged, which is made anew."""
    try:
        values = json.loads(read_private(path) or b"{}")
        return {str(key): int(value) for key, value in values.items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _write(path: Path, values: dict[str, int]) -> None:
    write_private(path, json.dumps(values, indent=1, sort_keys=True).encode() + b"\n")
