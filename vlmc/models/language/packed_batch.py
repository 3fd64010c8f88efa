"""The new tokens of several sequences, packed one after another without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vlmc.models.language.paged_cache import PAGE_TOKENS

QUERY_BLOCK = 128
"""Queries of one block of the prefill kernel."""
WHOLE_TOKENS = 1024
"""From so many new tokens on, with nothing cached before, a row is attended to as a whole: cuDNN's
attention reaches 479 TFLOP/s on an H100 at 3,406 tokens, the kernel over pages 286."""


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence's share of a step: `count` new tokens after `start` that the cache holds.

    `length` is the sequence length that rope scaling goes by: of a prompt its whole length, of a
    generated token the length up to it.
    """

    start: int
    count: int
    length: int
    pages: Sequence[int]


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """What a decoder step needs beside the embeddings, on the device.

    Rows with one new token come first (`decode_rows` of them), then the longer ones. T are all new
    tokens, R the rows, P the pages of the longest row.
    """

    positions: Tensor  # (T,) int64
    lengths: Tensor  # (T,) int64, as `Row.length`
    slots: Tensor  # (T,) int64, where each token's key and value are written
    pages: Tensor  # (R, P) int32
    totals: Tensor  # (R,) int32, tokens of the row in the cache after this step
    last: Tensor  # (R,) int64, packed index of the row's last token
    first: Tensor  # (R,) int32, packed index of the row's first token
    blocks: Tensor  # (B, 2) int32: row and first query of each block of the prefill kernel
    whole: tuple[tuple[int, int], ...]  # packed index and count of rows without such blocks
    rows: tuple[Row, ...]
    decode_rows: int

    @property
    def tokens(self) -> int:
        """New tokens of all rows."""
        return self.positions.shape[0]


def pack(rows: Sequence[Row], device: torch.device) -> PackedBatch:
    """Build the tensors of a step. Rows with one token must come before all others."""
    decode_rows = next((i for i, row in enumerate(rows) if row.count > 1), len(rows))
    if any(row.count == 1 for row in rows[decode_rows:]):
        raise ValueError("rows with one new token come first")
    counts = np.array([row.count for row in rows], np.int64)
    ends = np.cumsum(counts)
    first = ends - counts
    width = max(len(row.pages) for row in rows)
    pages = np.zeros((len(rows), width), np.int32)
    positions = np.empty(int(ends[-1]), np.int64)
    lengths, slots = np.empty_like(positions), np.empty_like(positions)
    blocks: list[tuple[int, int]] = []
    whole: list[tuple[int, int]] = []
    for index, row in enumerate(rows):
        pages[index, : len(row.pages)] = row.pages
        own = slice(int(first[index]), int(ends[index]))
        places = np.arange(row.start, row.start + row.count)
        positions[own], lengths[own] = places, row.length
        slots[own] = pages[index, places // PAGE_TOKENS] * PAGE_TOKENS + places % PAGE_TOKENS
        if row.start == 0 and row.count >= WHOLE_TOKENS:
            whole.append((int(first[index]), row.count))
        elif index >= decode_rows:
            blocks += [(index, query) for query in range(0, row.count, QUERY_BLOCK)]
    totals = np.array([row.start + row.count for row in rows], np.int32)

    def send(array: npt.NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if device.type == "cuda":
            return tensor.pin_memory().to(device, non_blocking=True)
        return tensor

    return PackedBatch(
        positions=send(positions),
        lengths=send(lengths),
        slots=send(slots),
        pages=send(pages),
        totals=send(totals),
        last=send(ends - 1),
        first=send(first.astype(np.int32)),
        blocks=send(np.array(blocks, np.int32).reshape(-1, 2)),
        whole=tuple(whole),
        rows=tuple(rows),
        decode_rows=decode_rows,
    )
