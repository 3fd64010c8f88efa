"""The tiles of a batch shared out over the engines of a group."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from vlmc.artifact.manifest import Profile
from vlmc.distributed.group import Group
from vlmc.image.tiles import TILE_SIZE
from vlmc.runtime.engines.engine import VisionEngine


class ParallelEngine:
    """The engine of rank 0, and through it those of its followers: each holds the whole tower and
    encodes a share of the tiles, so no head of the tower is cut."""

    def __init__(
        self,
        engine: VisionEngine,
        group: Group,
        device: torch.device,
        announce: Callable[[int], AbstractContextManager[None]],
    ) -> None:
        """`device` is that of the group. `announce` sends the followers a number of tiles, and
        gives the context in which they are encoded."""
        self._engine, self._group, self._device = engine, group, device
        self._announce = announce
        self.name, self.precision, self.device = engine.name, engine.precision, engine.device
        self.device_memory_bytes = engine.device_memory_bytes
        count = group.shard.count
        self.profiles: tuple[Profile, ...] = tuple(
            replace(profile, opt=profile.opt * count, max=profile.max * count)
            for profile in engine.profiles
        )

    def infer(
        self, tiles: Tensor, out: Tensor | None = None, stream: torch.cuda.Stream | None = None
    ) -> Tensor:
        """See `VisionEngine`."""
        if len(tiles) == 1:
            return self._engine.infer(tiles, out, stream)
        on_stream = nullcontext() if stream is None else torch.cuda.stream(stream)
        with self._announce(len(tiles)), on_stream:
            found = encode_share(self._engine, self._group, tiles.to(self._device))
            return found.to(self.device) if out is None else out.copy_(found)

    def close(self) -> None:
        """Free the engine."""
        self._engine.close()


def encode_share(engine: VisionEngine, group: Group, tiles: Tensor) -> Tensor:
    """Encode this rank's share of a batch, and collect the features of all.

    Args:
        tiles: uint8 (N, 448, 448, 3) on the group's device; of other ranks than 0 overwritten.

    Returns:
        (N, 256, hidden) on the group's device.
    """
    group.broadcast(tiles)
    shard, count = group.shard, len(tiles)
    share = shard.width(count)
    # Shares of one size: where the number of tiles is not a multiple, two ranks encode a tile.
    starts = [min(rank * share, count - share) for rank in range(shard.count)]
    own = tiles[starts[shard.rank] : starts[shard.rank] + share]
    parts = group.gather(engine.infer(own.to(engine.device)).to(tiles.device))
    features = parts.new_empty((count, *parts.shape[2:]))
    for start, part in zip(starts, parts, strict=True):
        features[start : start + share] = part
    return features


def receive_tiles(count: int, device: torch.device) -> Tensor:
    """Uninitialized memory for the tiles that rank 0 sends."""
    return torch.empty((count, TILE_SIZE, TILE_SIZE, 3), dtype=torch.uint8, device=device)
