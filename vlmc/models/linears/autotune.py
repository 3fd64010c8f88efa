"""Benchmark kernels on the GPU, and cache autotuning results in the user's cache folder."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from vlmc.machine.user_cache import read_private, user_cache, write_private
from vlmc.models.linears.kernel import Kernel

Choice = TypeVar("Choice")

_REPEATS = 7
_CACHE_BYTES, _FILLS = 1 << 28, 6
_decided: dict[tuple[Path, str], Any] = {}


def autotuned(
    name: str, key: str, measure: Callable[[], Choice], read: Callable[[Any], Choice]
) -> Choice:
    """The autotuned choice for `key`, from the cache or by running `measure`.

    Args:
        name: name of the cache file, without `.json`; choices are stored as JSON values.
        key: everything that the choice depends on, including GPU and software versions.
        measure: runs the benchmark and returns the choice.
        read: converts a cached JSON value; on ValueError or TypeError, `measure` runs again.
    """
    path = user_cache("kernels") / f"{name}.json"
    if (path, key) not in _decided:
        cached = _read(path)
        try:
            choice = read(cached[key])
        except (KeyError, ValueError, TypeError):
            choice = measure()
            _write(path, _read(path) | {key: choice})
        _decided[path, key] = choice
    found: Choice = _decided[path, key]
    return found


def describe(kernel: Kernel) -> str:
    """Cache key with all that a kernel's speed depends on: GPU, versions, shape, groups, dtype."""
    outputs, inputs = kernel.shape
    kind = "symmetric" if kernel.symmetric else "asymmetric"
    device = torch.cuda.get_device_name()
    return (
        f"{device} | torch {torch.__version__} | {kernel.name} | {outputs}x{inputs} | "
        f"group {kernel.group_size} {kind} | {kernel.dtype}"
    )


def milliseconds(run: Callable[[], object]) -> float:
    """Median GPU time of `run` in milliseconds, after two warm-up runs."""
    event: Any = torch.cuda.Event
    # Overwritten before each run to flush the L2 cache, because a whole model reads weights from
    # memory.
    cache = torch.empty(_CACHE_BYTES, dtype=torch.uint8, device="cuda")
    times: list[float] = []
    for repeat in range(_REPEATS + 2):
        start, end = event(enable_timing=True), event(enable_timing=True)
        # Keeps the GPU busy while the host queues `run`, so that launch delays are not timed.
        for _ in range(_FILLS):
            cache.zero_()
        start.record()
        run()
        end.record()
        end.synchronize()
        if repeat >= 2:
            times.append(start.elapsed_time(end))
    return statistics.median(times)


def _read(path: Path) -> dict[str, Any]:
    """The cached choices; empty if the file is damaged or owned by somebody else."""
    try:
        values = json.loads(read_private(path) or b"{}")
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _write(path: Path, values: dict[str, Any]) -> None:
    write_private(path, json.dumps(values, indent=1, sort_keys=True).encode() + b"\n")
