"""Tiles from the images' arrays to the engine's device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vlmc.image.tiles import TILE_SIZE

_TILE_SHAPE = (TILE_SIZE, TILE_SIZE, 3)


class TileUpload:
    """Copies batches of tiles; to a GPU through pinned memory, beside what runs there.

    A copy from ordinary memory would wait for everything that the stream was given before, and
    leave the GPU idle until the host has launched more. Two buffers take turns, so that a batch is
    copied while the one before is encoded.
    """

    def __init__(self, device: torch.device, capacity: int) -> None:
        """`capacity` is the most tiles of a batch."""
        self._device = device
        self._slots: list[_Slot] = []
        self._next = 0
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self._slots = [_Slot(device, capacity) for _ in range(2)]

    def copy(self, images: Sequence[npt.NDArray[np.uint8]]) -> Tensor:
        """All tiles of the images, at most `capacity`, as one batch.

        Args:
            images: uint8 (tiles, 448, 448, 3) each.

        Returns:
            (N, 448, 448, 3) on the device, for work on the current stream; valid until the copy
            after the next one.
        """
        if not self._slots:
            # Tiles from another process may be read only, of which torch would warn.
            alone = len(images) == 1 and images[0].flags.writeable
            return torch.from_numpy(images[0] if alone else np.concatenate(images))
        slot = self._slots[self._next]
        self._next = 1 - self._next
        slot.copied.synchronize()
        count = 0
        for image in images:
            slot.pixels[count : count + len(image)] = image
            count += len(image)
        current = torch.cuda.current_stream(self._device)
        # The batch before the last was read from this buffer.
        self._stream.wait_event(slot.read)
        with torch.cuda.stream(self._stream):
            slot.device[:count].copy_(slot.host[:count], non_blocking=True)
            slot.copied.record()
        current.wait_event(slot.copied)
        return slot.device[:count]

    def release(self) -> None:
        """Say that everything which reads the last batch has been launched."""
        if self._slots:
            self._slots[1 - self._next].read.record(torch.cuda.current_stream(self._device))


class _Slot:
    """A pinned buffer, its copy on the device, and when each may be written again."""

    def __init__(self, device: torch.device, capacity: int) -> None:
        self.host = torch.empty((capacity, *_TILE_SHAPE), dtype=torch.uint8, pin_memory=True)
        self.pixels = self.host.numpy()
        self.device = torch.empty((capacity, *_TILE_SHAPE), dtype=torch.uint8, device=device)
        self.copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self.read = torch.cuda.Event()  # type: ignore[no-untyped-call]
