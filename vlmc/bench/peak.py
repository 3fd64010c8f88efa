"""The rate of a large matrix product here: what a model's rate is compared with."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

PeakDtype = Literal["float32", "float16", "bfloat16", "float8"]
_GPU_SIDE, _CPU_SIDE = 8192, 1024
_GPU_REPEATS, _CPU_REPEATS, _WARM_UPS = 15, 3, 2


def peak_tflops(dtype: PeakDtype, device: torch.device) -> float:
    """TFLOP/s of a product of square matrices with random values: 8192³ on a GPU, 1024³ on a CPU.

    `float8` is E4M3 with a scale for each matrix, on a GPU that has it.
    """
    on_gpu = device.type == "cuda"
    side = _GPU_SIDE if on_gpu else _CPU_SIDE
    stored = torch.float8_e4m3fn if dtype == "float8" else getattr(torch, dtype)
    left, right = (torch.randn(side, side, device=device).to(stored) for _ in range(2))
    one = torch.ones((), device=device)

    def run() -> Tensor:
        if dtype == "float8":
            product: Tensor = torch._scaled_mm(
                left, right.T, one, one, out_dtype=torch.float16, use_fast_accum=True
            )
            return product
        return left @ right

    repeats = _GPU_REPEATS if on_gpu else _CPU_REPEATS
    for _ in range(_WARM_UPS):
        run()
    times = [_seconds(run, device) for _ in range(repeats)]
    return 2 * side**3 / statistics.median(times) / 1e12


def _seconds(run: Callable[[], Tensor], device: torch.device) -> float:
    """Time of one run on the device."""
    if device.type != "cuda":
        begin = time.perf_counter()
        run()
        return time.perf_counter() - begin
    with torch.cuda.device(device):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        run()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3


class Peaks:
    """Peaks of one device, each measured once."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.tflops: dict[PeakDtype, float] = {}

    def of(self, dtype: PeakDtype) -> float:
        """TFLOP/s."""
        if dtype not in self.tflops:
            self.tflops[dtype] = peak_tflops(dtype, self._device)
        return self.tflops[dtype]
