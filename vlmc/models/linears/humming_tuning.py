"""Autotune the tiles of humming's kernels for small batches.

humming picks tiles by heuristics. On Hopper, other tiles are faster for up to 32 rows, depending on
the shape. The three patterns below are the best of 100 to 160 tried for each linear of an 8B model.
At 64 and at 4,096 rows, none beats the heuristics.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from vlmc.errors import HardwareError
from vlmc.models.linears.autotune import autotuned
from vlmc.progress.channel import report
from vlmc.progress.events import Note

Tile = dict[str, Any]
Interval = tuple[int, int, Tile]  # rows above, rows up to, humming's tuning configuration
Launch = Callable[[Tensor, Mapping[str, Tensor], str], Tensor]

# Upper limits of the row ranges, which are also the tile heights.
BANDS = (8, 16, 32)
_CAPABILITY = (9, 0)
_LAUNCHES, _REPEATS = 24, 7
# A smaller gain is noise, so the default stays.
_GAIN = 0.98
_MAX_ERROR = 0.02


@dataclass(frozen=True)
class _Pattern:
    """A tile configuration without its height."""

    block: tuple[int, int]  # outputs, inputs of a thread block
    warp: tuple[int, int]
    stages: int
    stream_k: bool = False
    producer: bool = False  # a dedicated warp group loads through TMA
    overlap: bool = False  # its launch overlaps the preceding kernel

    def tile(self, height: int) -> Tile:
        return {
            "mma_type": "mma",
            "block_shape": [height, *self.block],
            "warp_shape": [height, *self.warp],
            "num_stages": self.stages,
            "num_ctas_per_sm": 1,
            "use_stream_k": self.stream_k,
            "use_tma": self.producer,
            "use_warp_spec": self.producer,
            "use_pdl": self.overlap,
            "evict_weights_first": True,
        }


_NARROW = _Pattern(block=(64, 256), warp=(32, 64), stages=5, overlap=True)
_PATTERNS = (
    _NARROW,
    replace(_NARROW, stages=4, stream_k=True, overlap=False),
    _Pattern(block=(256, 128), warp=(32, 128), stages=4, producer=True, overlap=True),
)


def candidate_tiles(shape: tuple[int, int], capability: tuple[int, int]) -> dict[int, list[Tile]]:
    """Tiles to benchmark for a weight (outputs, inputs), by the upper limit of their row range."""
    if capability != _CAPABILITY:
        return {}
    fitting = [
        pattern
        for pattern in _PATTERNS
        if shape[0] % pattern.block[0] == 0 and shape[1] % pattern.block[1] == 0
    ]
    return {rows: [pattern.tile(rows) for pattern in fitting] for rows in BANDS if fitting}


def read_choice(value: Any, candidates: dict[int, list[Tile]]) -> dict[int, Tile]:
    """Parse a cached choice: tiles by the upper limit of their row range.

    Raises:
        ValueError: a tile is no longer among the candidates.
        TypeError: the value is not a mapping.
    """
    choice = {int(rows): tile for rows, tile in dict(value).items()}
    if any(tile not in candidates.get(rows, []) for rows, tile in choice.items()):
        raise ValueError("tiles of another version")
    return choice


def override_tiles(defaults: list[Interval], choice: dict[int, Tile]) -> list[Interval]:
    """humming's default row intervals, with `choice` in place of its tiles for few rows."""
    above, intervals = 0, []
    for rows in BANDS:
        if rows in choice:
            intervals.append((above, rows, choice[rows]))
        else:
            intervals += _cut(defaults, above, rows)
        above = rows
    return intervals + _cut(defaults, above, defaults[-1][1])


def _cut(defaults: list[Interval], above: int, rows: int) -> list[Interval]:
    return [
        (max(low, above), min(high, rows), tile)
        for low, high, tile in defaults
        if low < rows and high > above
    ]


def tuned_tiles(
    key: str,
    candidates: dict[int, list[Tile]],
    measure: Callable[[], dict[int, Tile]],
) -> dict[int, Tile]:
    """The autotuned tiles for `key`, cached or measured now.

    If tuning fails, this reports it and returns no tiles, so humming's defaults apply. Failures are
    not cached, because they may be temporary, such as a lack of memory.

    Raises:
        HardwareError: see `fastest_tiles`.
    """
    if not candidates:
        return {}
    try:
        return autotuned("w4a16-tiles", key, measure, lambda value: read_choice(value, candidates))
    except (RuntimeError, OSError, AssertionError, TypeError, ValueError) as error:
        report(
            Note(
                f"cannot tune the tiles of humming-kernels, so its default tiles are used: {error}"
            )
        )
        return {}


def fastest_tiles(
    candidates: dict[int, list[Tile]],
    defaults: list[Interval],
    tensors: Mapping[str, Tensor],
    inputs: int,
    dtype: torch.dtype,
    launch: Launch,
) -> dict[int, Tile]:
    """Benchmark tiles, and return those that beat humming's default for their row range.

    Args:
        candidates: tiles to benchmark, by the upper limit of their row range.
        defaults: humming's default row intervals.
        tensors: a weight with scales and zero points, on the GPU.
        inputs: the weight's number of inputs.
        dtype: dtype of the activations.
        launch: multiplies (rows, inputs) by `tensors` with a tuning configuration.

    Raises:
        HardwareError: a tile computes another result than humming's default.
    """
    device = tensors["weight"].device
    size = sum(tensor.nbytes for tensor in tensors.values())
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    # More copies than fit the L2 cache, because a whole model reads weights from memory.
    copies = [tensors] + [
        {name: tensor.clone() for name, tensor in tensors.items()} for _ in range(3 * cache // size)
    ]
    choice = {}
    for rows, tiles in candidates.items():
        states = torch.randn(rows, inputs, dtype=dtype, device=device)
        defaults_text = json.dumps(defaults)
        expected = launch(states, tensors, defaults_text)
        least = _GAIN * _measure_seconds(states, copies, defaults_text, launch)
        for tile in tiles:
            text = json.dumps(tile)
            if not agree(launch(states, tensors, text), expected):
                raise HardwareError(
                    f"humming-kernels computes wrong results for {rows} rows on "
                    f"{torch.cuda.get_device_name(device)} with {text}: they differ by over "
                    f"{_MAX_ERROR:.0%} from those with its default tiles. Uninstall "
                    "humming-kernels to use torch's kernels, and report this."
                )
            seconds = _measure_seconds(states, copies, text, launch)
            if seconds < least:
                choice[rows], least = tile, seconds
    return choice


def agree(product: Tensor, expected: Tensor) -> bool:
    """Whether two results agree within the error of 16 bits; False if one contains NaN."""
    error = (product.float() - expected.float()).norm()
    # Not a quotient, because `expected` is zero if all weights are.
    return bool(error <= _MAX_ERROR * expected.float().norm())


def _measure_seconds(
    states: Tensor, copies: list[Mapping[str, Tensor]], text: str, launch: Launch
) -> float:
    """Time of one product inside a CUDA graph, between other kernels, as in decoding."""
    graph = torch.cuda.CUDAGraph()
    event: Any = torch.cuda.Event
    launch(states, copies[0], text)
    torch.cuda.synchronize()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        for index in range(_LAUNCHES):
            states.mul_(1)
            launch(states, copies[index % len(copies)], text)
    times: list[float] = []
    for _ in range(_REPEATS):
        start, end = event(enable_timing=True), event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times) / _LAUNCHES / 1000
