"""Tiles of humming's kernels for few rows, chosen by measurement.

humming picks tiles by rules of its own. For up to 32 rows on Hopper others are quicker, and which
they are depends on the shape: three were found by trying 100 to 160 for each linear of an 8B
model. At 64 rows, and at 4,096, nothing was found that beats its choice.
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

# Most rows of a band, which is also the height of its tiles.
BANDS = (8, 16, 32)
_CAPABILITY = (9, 0)
_LAUNCHES, _REPEATS = 24, 7
# Less than this is noise, and humming's own choice stays.
_GAIN = 0.98
_MAX_ERROR = 0.02


@dataclass(frozen=True)
class _Pattern:
    """A tile but for its height."""

    block: tuple[int, int]  # outputs, inputs of a thread block
    warp: tuple[int, int]
    stages: int
    stream_k: bool = False
    producer: bool = False  # a warp group of its own loads, by TMA
    overlap: bool = False  # its launch overlaps the end of the kernel before

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


def candidates(shape: tuple[int, int], capability: tuple[int, int]) -> dict[int, list[Tile]]:
    """The tiles to be tried for a weight (outputs, inputs), by the most rows of their band."""
    if capability != _CAPABILITY:
        return {}
    fitting = [
        pattern
        for pattern in _PATTERNS
        if shape[0] % pattern.block[0] == 0 and shape[1] % pattern.block[1] == 0
    ]
    return {rows: [pattern.tile(rows) for pattern in fitting] for rows in BANDS if fitting}


def read_choice(value: Any, tried: dict[int, list[Tile]]) -> dict[int, Tile]:
    """A choice from its JSON value: tiles by the most rows of their band.

    Raises:
        ValueError: it names a tile that is not tried any more.
        TypeError: it is no choice.
    """
    choice = {int(rows): tile for rows, tile in dict(value).items()}
    if any(tile not in tried.get(rows, []) for rows, tile in choice.items()):
        raise ValueError("another version's tiles")
    return choice


def with_choice(own: list[Interval], choice: dict[int, Tile]) -> list[Interval]:
    """humming's own intervals of rows, with what was chosen in the place of its few rows."""
    above, intervals = 0, []
    for rows in BANDS:
        if rows in choice:
            intervals.append((above, rows, choice[rows]))
        else:
            intervals += _cut(own, above, rows)
        above = rows
    return intervals + _cut(own, above, own[-1][1])


def _cut(own: list[Interval], above: int, rows: int) -> list[Interval]:
    return [
        (max(low, above), min(high, rows), tile)
        for low, high, tile in own
        if low < rows and high > above
    ]


def chosen(
    key: str,
    tried: dict[int, list[Tile]],
    measure: Callable[[], dict[int, Tile]],
) -> dict[int, Tile]:
    """What was chosen for this `key`, now or earlier; nothing where that fails.

    A failure is reported and not kept: another version of humming may not take these tiles, memory
    or disk may be short for a moment, and humming's own tiles are always available.

    Raises:
        HardwareError: as `choose`.
    """
    if not tried:
        return {}
    try:
        return autotuned("w4a16-tiles", key, measure, lambda value: read_choice(value, tried))
    except (RuntimeError, OSError, AssertionError, TypeError, ValueError) as error:
        report(
            Note(f"few rows run with humming's own tiles, since others cannot be tried: {error}")
        )
        return {}


def choose(
    tried: dict[int, list[Tile]],
    own: list[Interval],
    tensors: Mapping[str, Tensor],
    inputs: int,
    dtype: torch.dtype,
    launch: Launch,
) -> dict[int, Tile]:
    """The tile of each band that beats humming's own; none where its own is the quickest.

    Args:
        tensors: a weight and what belongs to it, on the GPU.
        launch: the product of rows (rows, inputs) and such tensors with a tuning configuration.

    Raises:
        HardwareError: a tile's products are not those of humming's own.
    """
    device = tensors["weight"].device
    size = sum(tensor.nbytes for tensor in tensors.values())
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    # More than the cache holds, so that weights come from memory as in a whole model.
    copies = [tensors] + [
        {name: tensor.clone() for name, tensor in tensors.items()} for _ in range(3 * cache // size)
    ]
    choice = {}
    for rows, tiles in tried.items():
        states = torch.randn(rows, inputs, dtype=dtype, device=device)
        own_text = json.dumps(own)
        expected = launch(states, tensors, own_text)
        least = _GAIN * _seconds(states, copies, own_text, launch)
        for tile in tiles:
            text = json.dumps(tile)
            if not agree(launch(states, tensors, text), expected):
                raise HardwareError(
                    f"humming-kernels computes {rows} rows wrongly on "
                    f"{torch.cuda.get_device_name(device)} with {text}: over {_MAX_ERROR:.0%} off "
                    "what it computes by its own choice. Remove humming-kernels to run through "
                    "torch alone, and report it."
                )
            seconds = _seconds(states, copies, text, launch)
            if seconds < least:
                choice[rows], least = tile, seconds
    return choice


def agree(product: Tensor, expected: Tensor) -> bool:
    """Whether two products of the same are as near as 16 bits have it; never where one is NaN."""
    lost = (product.float() - expected.float()).norm()
    # Not a quotient: the product of weights that are all zero is zero.
    return bool(lost <= _MAX_ERROR * expected.float().norm())


def _seconds(
    states: Tensor, copies: list[Mapping[str, Tensor]], text: str, launch: Launch
) -> float:
    """Time of a product, between other kernels in a CUDA graph as it is when it decodes."""
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
