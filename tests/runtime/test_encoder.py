"""Batches of tiles: every tile once, in order, whatever the images' sizes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor

from vlmc.artifact.manifest import Profile
from vlmc.runtime.images.encoder import ImageEncoder
from vlmc.runtime.requests.request import PreparedImage


@dataclass
class FirstPixels:
    """An engine whose features are the tile's first value."""

    batches: list[int] = field(default_factory=list)
    name = "first-pixels"
    precision = "fp32"
    profiles = (Profile(1, 2, 5),)
    device = torch.device("cpu")
    device_memory_bytes = 0

    def infer(
        self, tiles: Tensor, out: Tensor | None = None, stream: torch.cuda.Stream | None = None
    ) -> Tensor:
        self.batches.append(len(tiles))
        return tiles[:, 0, 0, 0].float()[:, None, None].expand(-1, 256, 4).contiguous()

    def close(self) -> None:
        """Nothing to free."""


def image(name: bytes, *values: int) -> PreparedImage:
    tiles = np.empty((len(values), 448, 448, 3), np.uint8)
    tiles[:] = np.array(values, np.uint8)[:, None, None, None]
    return PreparedImage(name, tiles)


@pytest.mark.parametrize(
    ("counts", "batches"),
    [([1], [1]), ([2, 3], [5]), ([4, 4], [5, 3]), ([12], [5, 5, 2]), ([1, 9, 5], [5, 5, 5])],
)
def test_tiles_fill_batches_and_come_back_to_their_images(
    counts: list[int], batches: list[int]
) -> None:
    engine = FirstPixels()
    encoder = ImageEncoder(engine, hidden_size=4, dtype=torch.float32, device=engine.device)
    numbers = iter(range(256))
    values = [[next(numbers) for _ in range(count)] for count in counts]
    images = [image(bytes([index]), *those) for index, those in enumerate(values)]
    features = encoder.encode(images)
    assert engine.batches == batches
    assert encoder.tiles_encoded == sum(counts)
    for those, found in zip(values, features, strict=True):
        assert found.shape == (256 * len(those), 4)
        assert found[::256, 0].tolist() == those


def test_an_image_is_encoded_once_while_it_is_kept() -> None:
    engine = FirstPixels()
    encoder = ImageEncoder(engine, hidden_size=4, dtype=torch.float32, device=engine.device)
    one, other = image(b"one", 1), image(b"other", 2, 3)
    first, again, _ = encoder.encode([one, one, other])
    assert torch.equal(first, again)
    assert torch.equal(encoder.encode([one])[0], first)
    assert (engine.batches, encoder.tiles_encoded) == ([3], 3)
