"""Small batches of an engine as CUDA graphs, captured once at load."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from vlmc.artifact.manifest import Profile
from vlmc.image.tiles import TILE_SIZE
from vlmc.runtime.engines.engine import VisionEngine

# The host launches a batch's kernels in less time than the GPU takes for so many tiles.
_MOST_EXACT = 8
# A padded replay costs the padding's share of the batch; a plain run, less than that of launches.
_MOST_PADDING = 1 / 16


CAPTURABLE = frozenset({"inductor"})
"""Engines whose runs a graph may capture. TensorRT's plans are not among them: none has been
captured yet."""


def graph_sizes(profiles: Iterable[Profile]) -> tuple[int, ...]:
    """Batches worth a graph: all small ones, and those that the profiles were made for."""
    largest = max((profile.max for profile in profiles), default=_MOST_EXACT)
    named = {size for profile in profiles for size in (profile.opt, profile.max)}
    return tuple(sorted(named | set(range(1, min(largest, _MOST_EXACT) + 1))))


class GraphedEngine:
    """An engine whose batches are replayed where a captured size fits, else run.

    All graphs share one memory pool and one input buffer, so one replay must be ordered after
    another on a stream; nothing is captured after loading.
    """

    def __init__(self, engine: VisionEngine, sizes: Iterable[int]) -> None:
        """Capture a graph for each of `sizes`.

        Args:
            engine: on a CUDA device, and capturable.
            sizes: numbers of tiles.
        """
        self._engine = engine
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        largest_first = sorted(set(sizes), reverse=True)
        shape = (largest_first[0], TILE_SIZE, TILE_SIZE, 3)
        self._tiles = torch.zeros(shape, dtype=torch.uint8, device=engine.device)
        pool: Any = None
        with torch.cuda.device(engine.device), torch.inference_mode():
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            for size in largest_first:
                tiles = self._tiles[:size]
                # What is set up at the first run of a size must not be captured.
                engine.infer(tiles, stream=stream)
                stream.synchronize()
                graph = torch.cuda.CUDAGraph()
                # Other models of the process may use the GPU meanwhile.
                with torch.cuda.graph(
                    graph, pool=pool, stream=stream, capture_error_mode="thread_local"
                ):
                    features = engine.infer(tiles, stream=stream)
                self._graphs[size] = graph, features
                pool = graph.pool()
            torch.cuda.current_stream().wait_stream(stream)
        self._sizes = sorted(self._graphs)

    @property
    def name(self) -> str:
        """The engine's."""
        return self._engine.name

    @property
    def precision(self) -> str:
        """The engine's."""
        return self._engine.precision

    @property
    def profiles(self) -> tuple[Profile, ...]:
        """The engine's."""
        return self._engine.profiles

    @property
    def device(self) -> torch.device:
        """The engine's."""
        return self._engine.device

    @property
    def device_memory_bytes(self) -> int:
        """The engine's, without what the graphs hold."""
        return self._engine.device_memory_bytes

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers of tiles that have a graph, in ascending order."""
        return tuple(self._sizes)

    def infer(
        self, tiles: Tensor, out: Tensor | None = None, stream: torch.cuda.Stream | None = None
    ) -> Tensor:
        """uint8 tiles (N, 448, 448, 3) → features (N, 256, hidden); see `VisionEngine`."""
        count = tiles.shape[0]
        size = self._size_for(count)
        if size is None:
            return self._engine.infer(tiles, out, stream)
        graph, features = self._graphs[size]
        stream = torch.cuda.current_stream(self.device) if stream is None else stream
        with torch.cuda.device(self.device), torch.cuda.stream(stream), torch.inference_mode():
            self._tiles[:count].copy_(tiles, non_blocking=True)
            graph.replay()
            # The next replay overwrites the graph's own output.
            return features[:count].clone() if out is None else out.copy_(features[:count])

    def close(self) -> None:
        """Free graphs and engine."""
        torch.cuda.synchronize(self.device)
        self._graphs.clear()
        self._engine.close()

    def _size_for(self, count: int) -> int | None:
        """The smallest captured size that takes `count` tiles without much padding."""
        size = next((size for size in self._sizes if size >= count), None)
        return None if size is None or size - count > size * _MOST_PADDING else size
