"""Split the tensors of a graph into batches whose outputs fit in memory together.

A batch starts from tensors of earlier batches, so that every node runs once. It ends where few
bytes are carried on: between blocks that is the residual stream, within attention all scores.
"""

from __future__ import annotations

from collections.abc import Sequence

from vlmc.verify.layers.marked_graph import GraphCopy
from vlmc.verify.layers.match import MatchedTensor


def split_batches(
    tensors: Sequence[MatchedTensor], fp32: GraphCopy, budget_bytes: int
) -> list[list[MatchedTensor]]:
    """Consecutive tensors of at most `budget_bytes`, or single ones that are larger."""
    carried = _carried_bytes(tensors, fp32)
    batches, start = [], 0
    while start < len(tensors):
        end, size = start + 1, tensors[start].bytes
        while end < len(tensors) and size + tensors[end].bytes <= budget_bytes:
            size += tensors[end].bytes
            end += 1
        if end < len(tensors):
            earliest = start + (end - start + 1) // 2
            end = min(range(end, earliest - 1, -1), key=carried.__getitem__)
        batches.append([*tensors[start:end]])
        start = end
    return batches


def _carried_bytes(tensors: Sequence[MatchedTensor], fp32: GraphCopy) -> list[int]:
    """For each index, the bytes of earlier tensors that this one or a later one reads."""
    index_of = {tensor.fp32: index for index, tensor in enumerate(tensors)}
    last_read: dict[int, int] = {}
    known: set[str] = set()
    for index, tensor in enumerate(tensors):
        for name in fp32.reads([tensor.fp32], known) & known:
            last_read[index_of[name]] = index
        known.add(tensor.fp32)
    carried = [0] * len(tensors)
    for index, last in last_read.items():
        for place in range(index + 1, last + 1):
            carried[place] += tensors[index].bytes
    return carried
