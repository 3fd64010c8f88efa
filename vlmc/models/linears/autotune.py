"""What is measured once on a GPU: how long work takes, and choices kept in the user's cache."""

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
    """What `measure` chose, the first time in `name`.json for this `key`.

    Args:
        name: of the file in the user's folder of kernels; its choices are JSON values.
        key: everything that the choice depends on, the GPU and versions of software included.
        measure: what takes long.
        read: a choice from its JSON value; ValueError or TypeError has it measured again.
    """
    path = user_cache("kernels") / f"{name}.json"
    if (path, key) not in _decided:
        kept = _read(path)
        try:
            choice = read(kept[key])
        except (KeyError, ValueError, TypeError):
            choice = measure()
            _write(path, _read(path) | {key: choice})
        _decided[path, key] = choice
    found: Choice = _decided[path, key]
    return found


def describe(kernel: Kernel) -> str:
    """What the speed of a kernel depends on: GPU, versions, shape, groups and dtype."""
    outputs, inputs = kernel.shape
    kind = "symmetric" if kernel.symmetric else "asymmetric"
    device = torch.cuda.get_device_name()
    return (
        f"{device} | torch {torch.__version__} | {kernel.name} | {outputs}x{inputs} | "
        f"group {kernel.group_size} {kind} | {kernel.dtype}"
    )


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


def _read(path: Path) -> dict[str, Any]:
    """What is kept; nothing of a file that is not the user's or was damaged, which is made anew."""
    try:
        values = json.loads(read_private(path) or b"{}")
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _write(path: Path, values: dict[str, Any]) -> None:
    write_private(path, json.dumps(values, indent=1, sort_keys=True).encode() + b"\n")
