"""CUDA graphs of steps in which every row decodes one token, by number of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vlmc.models.language.packed_batch import PackedBatch, Row, pack
from vlmc.models.language.packed_decoder import PackedDecoder

SIZES = (128, 64, 32, 16, 8, 4, 2, 1)


@dataclass(frozen=True, slots=True)
class _Graph:
    lanes: Tensor  # (rows,) int64, input
    batch: PackedBatch  # input
    logits: Tensor  # (rows, vocabulary), output
    graph: torch.cuda.CUDAGraph


class DecodeGraphs:
    """Captured once, the largest first, so that all share one pool of memory; the smallest that
    fits is replayed. Rows that only pad write to a page of their own."""

    def __init__(
        self,
        packed: PackedDecoder,
        last_tokens: Tensor,
        *,
        spare_page: int,
        spare_lane: int,
        max_pages: int,
    ) -> None:
        """Capture all sizes.

        Args:
            last_tokens: (lanes + 1,) int64, from which each row takes its input.
            spare_page, spare_lane: of rows that only pad.
            max_pages: of the longest sequence.
        """
        self._packed, self._last_tokens = packed, last_tokens
        self._spare = Row(0, 1, 1, [spare_page])
        self._spare_lane, self._max_pages = spare_lane, max_pages
        self._graphs: dict[int, _Graph] = {}
        pool = None
        for size in SIZES:
            self._graphs[size] = self._capture(size, pool)
            pool = self._graphs[size].graph.pool()

    def takes(self, rows: int) -> bool:
        """Whether a graph has so many rows."""
        return rows <= SIZES[0]

    def fill(self, rows: Sequence[Row], lanes: Sequence[int]) -> int:
        """Write a step's inputs to the graph that it is replayed in; returns that graph's rows."""
        size = min(size for size in SIZES if size >= len(rows))
        graph = self._graphs[size]
        padded = [*rows, *[self._spare] * (size - len(rows))]
        found = pack(padded, self._last_tokens.device)
        held = graph.batch
        held.positions.copy_(found.positions)
        held.lengths.copy_(found.lengths)
        held.slots.copy_(found.slots)
        held.totals.copy_(found.totals)
        held.pages[:, : found.pages.shape[1]].copy_(found.pages)
        all_lanes = [*lanes, *[self._spare_lane] * (size - len(rows))]
        graph.lanes.copy_(torch.tensor(all_lanes).pin_memory(), non_blocking=True)
        return size

    def replay(self, size: int) -> Tensor:
        """Logits (size, vocabulary) of what was filled in; valid until the next replay."""
        graph = self._graphs[size]
        graph.graph.replay()
        return graph.logits

    def close(self) -> None:
        """Free all graphs, which may hold operations of a process group."""
        for graph in self._graphs.values():
            graph.graph.reset()
        self._graphs.clear()

    def _capture(self, size: int, pool: tuple[int, int] | None) -> _Graph:
        device = self._last_tokens.device
        # As wide as the longest sequence can be: a graph's shapes are fixed.
        wide = Row(0, 1, 1, [self._spare.pages[0]] * self._max_pages)
        batch = pack([wide] * size, device)
        lanes = torch.full((size,), self._spare_lane, device=device)

        def step() -> Tensor:
            states = self._packed.decoder.embed_tokens(self._last_tokens[lanes])
            return self._packed.logits(self._packed.forward(states, batch))

        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            step()  # compiles, and fills the caches of what is called
        torch.cuda.current_stream(device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # Other threads use the GPU meanwhile, such as the watchdog of a process group.
        mode = "thread_local"
        with torch.cuda.graph(graph, pool=pool, capture_error_mode=mode):  # type: ignore[arg-type]
            logits = step()
        return _Graph(lanes, batch, logits, graph)
