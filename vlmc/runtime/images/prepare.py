"""From a request to tiles and token ids, on the CPU and ahead of the model."""

from __future__ import annotations

import hashlib
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vlmc.artifact.manifest import ImageRules
from vlmc.errors import UsageError
from vlmc.image.decode import ImageNote, read_picture
from vlmc.image.preprocess import read_tiles
from vlmc.image.source import (
    ImageSource,
    Pixels,
    describe,
    read_image_file,
    resolve_source,
)
from vlmc.image.tiles import TileRule
from vlmc.runtime.images.cache import KEPT_TILE_BYTES, ContentCache
from vlmc.runtime.requests.request import PreparedImage, TileOrigin, split_request
from vlmc.text.prompt import PromptBuilder


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """Token ids of the whole prompt, and the images that its image tokens stand for."""

    prompt_ids: tuple[int, ...]
    image_token_id: int
    images: tuple[PreparedImage, ...]
    prepare_ms: float

    @property
    def image_tokens(self) -> int:
        """Tokens that the images take."""
        return self.prompt_ids.count(self.image_token_id) if self.images else 0

    @property
    def image_notes(self) -> tuple[frozenset[ImageNote], ...]:
        """For each image, what decoding left unused."""
        return tuple(image.notes for image in self.images)


class ImagePreparer:
    """Decodes and tiles images; keeps the last few for the questions that follow."""

    def __init__(
        self, rules: ImageRules, tiles: TileRule, origin: TileOrigin | None = None
    ) -> None:
        """`origin` goes into every image, and prepared images of another one are refused."""
        self._rules, self._tiles, self._origin = rules, tiles, origin
        # Streams that are open at once, and `encode` beside them, prepare on threads of their own.
        self._kept: ContentCache[PreparedImage] = ContentCache(
            KEPT_TILE_BYTES, lambda image: image.tiles.nbytes
        )
        self._counting = threading.Lock()
        self.images_decoded = 0

    def image(self, source: ImageSource | PreparedImage) -> PreparedImage:
        """Decode and tile one image, or take it from the last few by its content.

        Raises:
            ImageError: it is missing, damaged, too large, or not an image.
            UsageError: it was prepared for another artifact or with another tile rule.
        """
        if isinstance(source, PreparedImage):
            return self._checked(source)
        name, rules, picture = describe(source), self._rules, None
        content = resolve_source(source, name)
        if isinstance(content, Path):
            content = read_image_file(content)
        elif isinstance(content, Image.Image):
            # Its mode, palette and EXIF data decide its pixels, so it is decoded first.
            picture = read_picture(
                content, exif=rules.exif, high_bit_depth=rules.high_bit_depth, name=name
            )
            self._count_decoded()
            content = picture.pixels
        notes = frozenset[ImageNote]() if picture is None else picture.notes
        digest = _digest(content, notes)

        def prepared() -> PreparedImage:
            tiled = read_tiles(
                content,
                self._tiles,
                rules.resampler,
                exif=rules.exif,
                high_bit_depth=rules.high_bit_depth,
                name=name,
            )
            if picture is None:
                self._count_decoded()
            return PreparedImage(
                digest, tiled.tiles, notes=notes | tiled.notes, origin=self._origin
            )

        return self._kept.get_or_compute(digest, prepared)

    def _checked(self, image: PreparedImage) -> PreparedImage:
        if image.origin not in (None, self._origin) and self._origin is not None:
            raise UsageError(
                f"the image was prepared for {image.origin}, and this model is {self._origin}; "
                "prepare it for this one"
            )
        return image

    def _count_decoded(self) -> None:
        with self._counting:
            self.images_decoded += 1


class Preparer:
    """Makes tiles and token ids of requests."""

    def __init__(self, images: ImagePreparer, prompts: PromptBuilder) -> None:
        self.images, self._prompts = images, prompts

    def request(self, request: object) -> PreparedRequest:
        """Prepare one request.

        Raises:
            VlmcError: the request, one of its images or its prompt is not usable.
        """
        start = time.perf_counter()
        sources, question = split_request(request)
        images = tuple(self.images.image(source) for source in sources)
        prompt = self._prompts.build(question, [len(image.tiles) for image in images])
        return PreparedRequest(
            prompt_ids=tuple(prompt.ids),
            image_token_id=prompt.image_token_id,
            images=images,
            prepare_ms=(time.perf_counter() - start) * 1e3,
        )


def _digest(content: bytes | Pixels, notes: frozenset[ImageNote]) -> bytes:
    """BLAKE2b over all bytes of an encoded file, or over all pixels, their shape and notes."""
    if isinstance(content, bytes):
        return hashlib.blake2b(content, digest_size=32).digest()
    form = f"{content.shape} {content.dtype} {sorted(notes)}"
    digest = hashlib.blake2b(form.encode(), digest_size=32)
    digest.update(np.ascontiguousarray(content).data)
    return digest.digest()
