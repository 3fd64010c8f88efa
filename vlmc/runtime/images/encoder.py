"""Image features, computed once for the questions that follow each other on one image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vlmc.errors import IntegrityError
from vlmc.image.tiles import TOKENS_PER_TILE
from vlmc.models.vision.prune import prune_image, prune_tokens
from vlmc.runtime.engines.engine import VisionEngine
from vlmc.runtime.images.cache import KEPT_FEATURE_BYTES, ContentCache
from vlmc.runtime.images.upload import TileUpload
from vlmc.runtime.requests.request import PreparedImage
from vlmc.runtime.requests.timeline import span

_BATCH_TILES = 13  # of an engine without profiles


class ImageEncoder:
    """Runs the vision engine on what it has not just seen, by the images' content."""

    def __init__(
        self,
        engine: VisionEngine,
        *,
        hidden_size: int,
        dtype: torch.dtype,
        device: torch.device,
        tokens_per_tile: int = TOKENS_PER_TILE,
    ) -> None:
        """`tokens_per_tile` of the engine's tokens are kept of every tile."""
        self._engine, self._dtype, self._device = engine, dtype, device
        self._shape = torch.Size((TOKENS_PER_TILE, hidden_size))
        self._kept: ContentCache[Tensor] = ContentCache(
            KEPT_FEATURE_BYTES, lambda features: features.nbytes
        )
        self._upload = TileUpload(engine.device, self.batch_tiles)
        self._tokens_per_tile = tokens_per_tile
        self.tiles_encoded = 0

    @property
    def engine(self) -> VisionEngine:
        """What computes the features."""
        return self._engine

    @property
    def batch_tiles(self) -> int:
        """Tiles that fill a batch: the most that a profile runs at once."""
        return max((profile.max for profile in self._engine.profiles), default=_BATCH_TILES)

    def encode(self, images: Sequence[PreparedImage]) -> list[Tensor]:
        """Features of each image, (tokens · tiles, hidden) in the language model's dtype.

        Raises:
            IntegrityError: the engine was made for another language model.
        """
        # Held here too, because one request may have more images than the cache keeps.
        found: dict[bytes, Tensor] = {}
        new: dict[bytes, PreparedImage] = {}
        for image in images:
            if image.features is None:
                kept = self._kept.get(image.digest)
                if kept is None:
                    new[image.digest] = image
                else:
                    found[image.digest] = kept
        if new:
            features = self._features([image.tiles for image in new.values()])
            counts = [len(image.tiles) for image in new.values()]
            for digest, part in zip(new, torch.split(features, counts), strict=True):
                found[digest] = part.flatten(0, 1)
                # Of its own, so that a kept image does not keep its batch.
                self._kept.put(digest, found[digest].clone())
        return [
            found[image.digest]
            if image.features is None
            else prune_image(image.features, len(image.tiles), self._tokens_per_tile).to(
                self._device, self._dtype
            )
            for image in images
        ]

    def _features(self, images: Sequence[npt.NDArray[np.uint8]]) -> Tensor:
        """Features (N, tokens, hidden) of all tiles of the images, in order."""
        parts = []
        for batch in _batches(images, self.batch_tiles):
            count, device = sum(map(len, batch)), self._engine.device
            with span("copy", device, tiles=count):
                tiles = self._upload.copy(batch)
            with span("vision", device, tiles=count):
                features = self._engine.infer(tiles)
                self._upload.release()
                self._check(features)
                self.tiles_encoded += count
                kept = prune_tokens(features, self._tokens_per_tile)
                parts.append(kept.to(self._device, self._dtype))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _check(self, features: Tensor) -> None:
        if features.shape[1:] != self._shape:
            raise IntegrityError(
                f"the {self._engine.name} engine makes features of {list(features.shape[1:])} "
                f"a tile where the language model takes {list(self._shape)}: it is another "
                "model's. Build the artifact again."
            )


def _batches(
    images: Sequence[npt.NDArray[np.uint8]], most: int
) -> Iterator[list[npt.NDArray[np.uint8]]]:
    """The images' tiles in order, in batches of at most `most`."""
    batch: list[npt.NDArray[np.uint8]] = []
    room = most
    for image in images:
        start = 0
        while start < len(image):
            part = image[start : start + room]
            batch.append(part)
            start, room = start + len(part), room - len(part)
            if not room:
                yield batch
                batch, room = [], most
    if batch:
        yield batch
