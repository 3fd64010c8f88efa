"""What a checkpoint linear fills of a decoder, and the part of it that a shard keeps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vlmc.checkpoint.quantization import PER_WORD
from vlmc.distributed.shard import Shard
from vlmc.models.linears.quantized import check_shape

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class LinearSpec:
    """A linear of the checkpoint: its outputs in blocks that are cut one by one, and its inputs.

    With `cuts_inputs` a shard keeps all outputs and some of the inputs.
    """

    name: str
    blocks: tuple[int, ...]
    inputs: int
    cuts_inputs: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs."""
        return sum(self.blocks), self.inputs

    def rows(self, shard: Shard) -> tuple[Span, ...]:
        """The outputs that a shard keeps."""
        if self.cuts_inputs:
            return ((0, sum(self.blocks)),)
        spans, first = [], 0
        for block in self.blocks:
            start, end = shard.span(block)
            spans.append((first + start, first + end))
            first += block
        return tuple(spans)

    def cut(self, kind: str, source: str, tensor: Tensor, shard: Shard) -> Tensor:
        """The part of one of the linear's tensors that a shard keeps.

        Rows of a mapped file are read only when they are used.

        Args:
            kind: name of the tensor within the linear, such as `weight_scale`.
            source: full name of the tensor, for error messages.
            tensor: the whole tensor.
            shard: the part to keep.

        Raises:
            CheckpointError: the tensor has the wrong shape.
        """
        if shard.count == 1:
            return tensor
        outputs, inputs = self.shape
        a_row = PER_WORD if kind == "weight_zero_point" else 1
        check_shape(source, tensor, (outputs // a_row, *tensor.shape[1:]))
        if self.cuts_inputs and kind == "bias":
            # The parts are summed, so only one of them adds it.
            return tensor if shard.rank == 0 else torch.zeros_like(tensor)
        parts = [tensor[start // a_row : end // a_row] for start, end in self.rows(shard)]
        rows = parts[0] if len(parts) == 1 else torch.cat(parts)
        # One column is a scale of all inputs.
        if not self.cuts_inputs or tensor.shape[1] == 1:
            return rows
        a_column = max(1, inputs // tensor.shape[1])
        check_shape(source, tensor, (tensor.shape[0], inputs // a_column))
        start, end = shard.span(inputs)
        return rows[:, start // a_column : end // a_column].contiguous()


@dataclass(frozen=True, slots=True)
class ParameterSlice:
    """The outputs `start` to `stop` of the module at `path`, which a shard of `linear` fills."""

    path: str
    start: int
    stop: int
    linear: LinearSpec
