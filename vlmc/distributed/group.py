"""Collective operations of the processes that share a model."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed import distributed_c10d

from vlmc.distributed.shard import WHOLE, Shard
from vlmc.errors import HardwareError

_TIMEOUT = timedelta(minutes=10)
_LOOPBACK = "127.0.0.1"


class Group:
    """One process of a group, or a process alone, whose operations return their input.

    On a GPU operations are ordered with the current stream, and CUDA graphs capture them. The
    group is separate from torch's default one, so a program may have its own.
    """

    def __init__(self, shard: Shard = WHOLE, processes: Any = None) -> None:
        self.shard = shard
        self._processes = processes
        self._is_closed = False

    @property
    def is_alone(self) -> bool:
        """Whether there is only one process."""
        return self.shard.count == 1

    def broadcast(self, tensor: Tensor) -> Tensor:
        """Overwrite `tensor` by that of rank 0."""
        if not self.is_alone:
            options = dist.BroadcastOptions()
            options.rootRank, options.rootTensor, options.asyncOp = 0, 0, False
            _finish(self._processes.broadcast([tensor], options))
        return tensor

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Overwrite `tensor` by the sum over all ranks."""
        if not self.is_alone:
            options = dist.AllreduceOptions()
            options.asyncOp = False
            _finish(self._processes.allreduce([tensor], options))
        return tensor

    def gather(self, tensor: Tensor) -> Tensor:
        """(…) of every rank, all of one shape → (ranks, …) on every rank."""
        if self.is_alone:
            return tensor[None]
        # Gloo takes flat tensors alone.
        flat = tensor.flatten()
        found = flat.new_empty(self.shard.count * len(flat))
        options = distributed_c10d.AllgatherOptions()  # type: ignore[attr-defined]
        options.asyncOp = False
        _finish(self._processes._allgather_base(found, flat, options))
        return found.view(self.shard.count, *tensor.shape)

    def gather_columns(self, tensor: Tensor, width: int) -> Tensor:
        """(rows, columns) of every rank, at most `width` wide → (rows, ranks · width) on all.

        Columns that a rank lacks are zero.
        """
        if self.is_alone:
            return tensor
        missing = width - tensor.shape[-1]
        parts = self.gather(torch.nn.functional.pad(tensor, (0, missing)))
        return parts.movedim(0, -2).flatten(-2)

    def minimum(self, number: int, device: torch.device) -> int:
        """The smallest of the ranks' numbers. The first call connects the devices."""
        if self.is_alone:
            return number
        return int(self.gather(torch.tensor([number], device=device)).min())

    def close(self) -> None:
        """Leave the group, and end operations that wait for other processes.

        CUDA graphs that captured its operations must be freed before.
        """
        if self._processes is not None and not self._is_closed:
            self._is_closed = True
            self._processes.abort()


ALONE = Group()
"""The group of a model on one device."""


def join_group(shard: Shard, folder: Path, device: torch.device) -> Group:
    """Join the group of the processes that share `folder`, which is empty before the first joins.

    They find each other by a file in it: NCCL connects them on GPUs, Gloo on CPUs, over loopback.

    Raises:
        HardwareError: torch has no NCCL.
    """
    store = dist.FileStore(str(folder / "group"), shard.count)  # type: ignore[attr-defined]
    if device.type == "cuda":
        if not dist.is_nccl_available():
            raise HardwareError(
                f"torch {torch.__version__} was built without NCCL, which connects several GPUs. "
                "Install a CUDA build of torch for Linux, or use one device."
            )
        settings: Any = dist.ProcessGroupNCCL.Options()
        settings._timeout = _TIMEOUT
        nccl = dist.ProcessGroupNCCL(store, shard.rank, shard.count, settings)
        nccl.eager_connect_single_device(device)
        return Group(shard, nccl)
    settings = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
    settings._timeout = _TIMEOUT
    settings._devices = [dist.ProcessGroupGloo.create_device(hostname=_LOOPBACK)]
    return Group(shard, dist.ProcessGroupGloo(store, shard.rank, shard.count, settings))


def _finish(work: Any) -> None:
    """Wait for an operation: on a GPU the current stream does, the host does not."""
    if work is not None:
        work.wait()
